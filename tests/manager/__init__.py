"""Tests of the manager: what a process holds, and how it is released."""
