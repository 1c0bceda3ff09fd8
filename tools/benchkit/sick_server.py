"""Serve a virtual stick of so many bytes over USB/IP; each line of the input is its fault from then on.

Prints host, port, bus id and serial number, then a line when each fault is set. An empty line makes it healthy.
"""

from __future__ import annotations

import os
import sys

from scsiusb.virtual import Identity, Sparse, Stick, Unit
from scsiusb.virtual.usbip.server import Server


def main(size: int) -> None:
    """Serve until the end of the input."""
    identity = Identity(serial=f"51C{os.getpid():09X}", speed="high")
    with Stick([Unit(Sparse(size // 512, 512))], identity) as stick, Server(stick, port=0) as server:
        print(server.host, server.port, server.bus_id, identity.serial, flush=True)
        for line in sys.stdin:
            stick.faults.clear()
            if fault := line.strip():
                stick.faults.add(fault)
            print("set", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
