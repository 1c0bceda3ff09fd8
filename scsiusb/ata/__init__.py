"""ATA commands through a bridge that translates them (SAT), and what they report."""

from scsiusb.scsi import catalog

catalog.add_package(__name__)
