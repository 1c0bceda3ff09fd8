"""The command line interface; one module for each family of commands in `commands`."""
