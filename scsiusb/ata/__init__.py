"""ATA commands through a bridge that translates them (SAT), and what they report."""

from typing import Final

from scsiusb.scsi import catalog

DECLARING: Final = (*catalog.OWN, __name__)
"""The packages whose modules declare commands, for the look-ups of `scsiusb.scsi.catalog`."""
