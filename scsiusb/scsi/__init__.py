"""SCSI: commands, replies, sense, and the logical unit that executes them."""
