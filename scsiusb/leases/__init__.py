"""Leases: which process holds which interface, recorded across processes, and recovery after a crash."""
