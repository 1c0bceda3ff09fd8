"""A USB/IP server, which exports a virtual stick to a kernel."""
