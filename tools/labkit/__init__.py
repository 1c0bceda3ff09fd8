"""The lab: a real kernel's USB stack, and devices to try it on, on any Linux machine."""
