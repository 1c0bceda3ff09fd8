"""The USB device that the virtual stick plays: descriptors, endpoint 0, Bulk-Only Transport."""
