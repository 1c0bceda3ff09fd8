"""Small helpers that know nothing of USB or SCSI."""
