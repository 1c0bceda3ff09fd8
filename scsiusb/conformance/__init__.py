"""Conformance checks of a device against the USB, BOT and SCSI specifications, and the engine that runs them."""
