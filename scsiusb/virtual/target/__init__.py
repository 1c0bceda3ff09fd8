"""The SCSI target inside the virtual stick: logical units and their media."""
