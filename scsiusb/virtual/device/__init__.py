"""The USB device of the virtual stick: descriptors, endpoint 0, Bulk-Only Transport."""
