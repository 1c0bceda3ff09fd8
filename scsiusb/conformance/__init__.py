"""Does a device do what the specifications demand: a table of checks, and the engine that runs them."""
