"""USB Attached SCSI (T10 UAS-3): commands in information units, each with its own data and status."""
