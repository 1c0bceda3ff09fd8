"""Tests of the pure parts of tools/."""
