"""Recording of USB transfers."""
