"""Names of loggers that users choose by themselves."""

from __future__ import annotations

from typing import Final

COMMANDS: Final = "scsiusb.commands"
"""Each SCSI command at DEBUG, in text: set the level before the device is opened. It costs time for each command."""
