"""The jobs that people do with a disk: copy it to an image and back, compare it, and be sure of the result."""

from __future__ import annotations

from scsiusb.imaging.comparing import Comparison as Comparison
from scsiusb.imaging.comparing import compare as compare
from scsiusb.imaging.dumping import Dump as Dump
from scsiusb.imaging.dumping import dump as dump
from scsiusb.imaging.erasing import Erased as Erased
from scsiusb.imaging.erasing import erase as erase
from scsiusb.imaging.events import Progress as Progress
from scsiusb.imaging.events import TargetProgress as TargetProgress
from scsiusb.imaging.events import TargetsProgress as TargetsProgress
from scsiusb.imaging.identity import DiskIdentity as DiskIdentity
from scsiusb.imaging.latencies import Region as Region
from scsiusb.imaging.mapfile import Area as Area
from scsiusb.imaging.probe_result import Probe as Probe
from scsiusb.imaging.probing import probe as probe
from scsiusb.imaging.readback import BlockRange as BlockRange
from scsiusb.imaging.rescuing import Rescue as Rescue
from scsiusb.imaging.rescuing import rescue as rescue
from scsiusb.imaging.restoring import Restored as Restored
from scsiusb.imaging.restoring import SomeFailed as SomeFailed
from scsiusb.imaging.restoring import clone as clone
from scsiusb.imaging.restoring import restore as restore
from scsiusb.imaging.scanning import Scan as Scan
from scsiusb.imaging.scanning import scan as scan
