"""A model of media and of those who use them: what was read, written and flushed, and what must be true of it."""
