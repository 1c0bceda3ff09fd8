"""ATA commands through a bridge that translates them (SAT), and what they report."""
