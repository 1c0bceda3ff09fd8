"""The conformance checks, one module for each topic; `CHECKS` in each lists them in order."""
