"""The jobs that people do with a disk: copy it to an image and back, compare it, and be sure of the result."""

from __future__ import annotations

from scsiusb.imaging.compare import Comparison as Comparison
from scsiusb.imaging.compare import compare as compare
from scsiusb.imaging.dump import Dump as Dump
from scsiusb.imaging.dump import dump as dump
from scsiusb.imaging.events import Progress as Progress
from scsiusb.imaging.identity import Identity as Identity
from scsiusb.imaging.readback import BlockRange as BlockRange
from scsiusb.imaging.restore import Restored as Restored
from scsiusb.imaging.restore import SomeFailed as SomeFailed
from scsiusb.imaging.restore import clone as clone
from scsiusb.imaging.restore import restore as restore
