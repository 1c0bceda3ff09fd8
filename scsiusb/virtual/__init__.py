"""A USB stick made of software: the device's side of everything, behind the same seam as libusb."""
