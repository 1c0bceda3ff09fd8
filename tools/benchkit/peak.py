"""Does one thing in a separate process, then prints its peak memory and its duration.

peak.py stream DEVICE BLOCKS | peak.py cli WORDS...
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path


def stream(device: str, blocks: str) -> None:
    """Read so many blocks as a stream."""
    import scsiusb

    with scsiusb.open(device) as disk, disk.reading(0, int(blocks)) as pieces:
        for _ in pieces:
            pass


def cli(*words: str) -> None:
    """Run a scsiusb command; exit if it fails."""
    from scsiusb import __main__

    sys.argv[1:] = words
    status = __main__.main()
    if status:
        sys.exit(status)


def high_water() -> int:
    """Return the peak resident memory in KiB. getrusage would include the parent's memory from before exec."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def main() -> None:
    """Run what the arguments name; print {"peak": KiB, "seconds": …}."""
    what, *words = sys.argv[1:]
    began = time.perf_counter()
    (stream if what == "stream" else cli)(*words)
    print(json.dumps({"peak": high_water(), "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
