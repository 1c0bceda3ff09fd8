"""The faults of the virtual stick."""
