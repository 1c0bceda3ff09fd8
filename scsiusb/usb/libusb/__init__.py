"""The USB backend over libusb, through pyusb."""
