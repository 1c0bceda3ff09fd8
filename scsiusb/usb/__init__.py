"""USB: the interface to a USB stack, the search for interfaces, and the open port."""
