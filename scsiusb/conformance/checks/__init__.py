"""The checks, one file for each topic."""
