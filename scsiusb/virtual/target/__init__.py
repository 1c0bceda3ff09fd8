"""The SCSI target of the virtual stick: logical units and their media."""
