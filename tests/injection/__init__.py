"""An exception at every bytecode of the driver, and real signals at random moments: nothing may be left held."""
