"""The commands, one declaration each, one file for each standard."""
