"""Linux facts about a USB device: drivers, disks and what uses them, the udev rule."""
