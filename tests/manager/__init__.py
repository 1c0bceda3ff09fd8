"""Tests of who holds what, and of how it is given back."""
