"""SCSI commands, one declaration each, one module for each standard."""
