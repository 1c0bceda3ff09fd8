"""Words on a terminal: one small module per family of commands."""
