"""What the operating system knows about a USB device: drivers, mounts, udev rules."""
