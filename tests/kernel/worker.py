"""A program that opens a device and ends in the given way: python -m tests.kernel.worker ADDRESS ENDING."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time

import scsiusb

if sys.platform != "linux":
    raise ImportError("these tests run on Linux only")


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def read_forever(disk: scsiusb.Disk) -> None:
    while True:
        disk.read(0, 2048)


def read_many_forever(disk: scsiusb.Disk) -> None:
    """Read with as many commands in flight as the device takes."""
    for _ in disk.read_many((lba % 4096, 8) for lba in itertools.count(step=8)):
        pass


def fork_and_exit(disk: scsiusb.Disk) -> None:
    """Try to read in the child of a fork, which is refused, and exit it normally; then read in the parent."""
    child = os.fork()
    if child == 0:
        try:
            disk.read(0, 1)
        except scsiusb.DeviceClosed as error:
            say("child", error)
        sys.exit(7)
    _, status = os.waitpid(child, 0)
    say("ended", os.waitstatus_to_exitcode(status))
    say("parent", len(disk.read(0, 1)))
    disk.close()


def main(address: str, ending: str) -> None:
    disk = scsiusb.open(address, on_gone=lambda: say("gone"))
    disk.read(0, 1)
    say("open")
    if ending == "exit":
        return
    if ending == "exit-in-command":
        threading.Thread(target=read_forever, args=[disk], daemon=True).start()
        time.sleep(0.3)
        return
    if ending == "fork":
        fork_and_exit(disk)
        return
    if ending == "fork-then-gone":
        fork_and_exit(disk)
        disk = scsiusb.open(address, on_gone=lambda: say("gone"))
        say("again")
    if ending == "read":
        read_forever(disk)
    if ending == "read-many":
        read_many_forever(disk)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
