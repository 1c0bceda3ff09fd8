"""Fuzzing: hostile bytes for every parser, and hostile devices and clients for all of scsiusb."""
