"""Faults that the virtual stick can be told to show."""
