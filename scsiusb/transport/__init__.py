"""Carries a command's bytes to the device and back."""
