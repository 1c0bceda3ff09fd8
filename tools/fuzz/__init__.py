"""Fuzzing: hostile bytes for every parser; hostile devices and clients for whole sessions."""
