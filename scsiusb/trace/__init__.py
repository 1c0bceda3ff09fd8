"""Records what goes over the bus: backends over the USB seam."""
