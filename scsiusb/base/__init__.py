"""Small helpers that do not depend on USB or SCSI."""
