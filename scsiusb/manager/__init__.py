"""Which devices exist, who holds them, and how they are given back."""
