"""Does one thing in a process of its own, then says how much memory that had at most.

peak.py stream DEVICE BLOCKS | peak.py cli WORDS...
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path


def stream(device: str, blocks: str) -> None:
    import scsiusb

    with scsiusb.open(device) as disk, disk.reading(0, int(blocks)) as pieces:
        for _ in pieces:
            pass


def cli(*words: str) -> None:
    from scsiusb import __main__

    sys.argv[1:] = words
    status = __main__.main()
    if status:
        sys.exit(status)


def high_water() -> int:
    """In KiB. Not getrusage, which counts what the parent had before exec."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def main() -> None:
    what, *words = sys.argv[1:]
    began = time.perf_counter()
    (stream if what == "stream" else cli)(*words)
    print(json.dumps({"peak": high_water(), "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
