"""A USB/IP server: exports a virtual stick to a kernel."""
