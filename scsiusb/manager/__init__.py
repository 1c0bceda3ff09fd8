"""Attached devices, their clients in this process, and their release."""
