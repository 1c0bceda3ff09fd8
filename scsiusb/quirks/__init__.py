"""Quirks: the devices that need special handling, and how to look them up."""
