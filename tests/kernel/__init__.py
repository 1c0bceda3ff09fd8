"""Tests against a real kernel's USB stack: they run in the lab's guest only."""
