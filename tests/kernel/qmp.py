"""QEMU's monitor from inside the guest: plug in, pull and change media."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from .machine import Device, LabError

if sys.platform != "linux":
    raise ImportError("these tests run on Linux only")

PORT = "scsiusb.qmp"
PATIENCE = 60.0
RELEASED = 3.0  # seconds within which QEMU releases the block node of a device that was unplugged
HELD = "Permission conflict"


class QmpError(LabError):
    """QEMU refused the command."""


class Monitor:
    """Connection to QEMU's monitor through a virtio port of the guest."""

    def __init__(self, node: Path) -> None:
        self._fd = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._received = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        # An error means only that an earlier process of this guest has done it already.
        self._exchange("qmp_capabilities", {})

    def execute(self, command: str, arguments: dict[str, Any]) -> Any:
        reply = self._exchange(command, arguments)
        if "error" in reply:
            raise QmpError(f"{command}: {reply['error']['desc']}")
        return reply["return"]

    def _exchange(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        mark = f"{os.getpid()}-{self._number}"
        os.write(self._fd, json.dumps({"execute": command, "arguments": arguments, "id": mark}).encode() + b"\n")
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self._message(deadline)
            if message.get("id") == mark:
                return message
            if "event" in message:
                self.events.append(message)

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left < 0 or not select.select([self._fd], [], [], left)[0]:
                raise LabError("QEMU's monitor does not answer")
            self._received += os.read(self._fd, 65536)
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


@cache
def monitor() -> Monitor:
    """Return the only connection: two connections would read each other's replies."""
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text().strip() == PORT:
            return Monitor(Path("/dev") / name.parent.name)
    raise LabError(f"the guest has no port {PORT}")


def qmp(command: str, **arguments: Any) -> Any:
    """Let QEMU execute a command and return its reply; pass names with a dash as `**{"node-name": …}`."""
    return monitor().execute(command, arguments)


def pull(device: Device) -> None:
    """Have QEMU pull one of its devices; returns at once."""
    qmp("device_del", id=device.name)


def insert(device: Device) -> None:
    """Have QEMU plug in one of its devices that was pulled."""
    for unit in device.units:
        if unit.type == "disk" and unit.path is None:
            # QEMU drops an empty drive with its device.
            qmp("human-monitor-command", **{"command-line": f"drive_add 0 if=none,id={device.name}-{unit.lun}"})
    for properties in device.qemu:
        _add(properties)
    if device.kind in ("usb-bot", "usb-uas"):
        # Hot-plugged, it stays off the bus until its disks are complete.
        qmp("qom-set", path=f"/machine/peripheral/{device.name}", property="attached", value=True)


def _add(properties: dict[str, Any]) -> None:
    """Plug in a device; if QEMU does not release its block node, use a second node on the same file.

    QEMU 7.2 may keep the request of a command whose program was killed forever, and with it the unplugged device.
    """
    deadline = time.monotonic() + RELEASED
    while True:
        try:
            qmp("device_add", **properties)
        except QmpError as error:
            if HELD not in str(error):
                raise
            if time.monotonic() > deadline:
                qmp("device_add", **{**properties, "drive": _twin(properties["drive"])})
                return
            time.sleep(0.05)
        else:
            return


def _twin(name: str) -> str:
    """Open the node's file as a second node and return its name; without a lock, which the first node has."""
    nodes = {node["node-name"]: node for node in qmp("query-named-block-nodes")}
    held = nodes[name]
    number = sum(each.startswith(f"{name}-twin") for each in nodes)
    file = {"driver": "file", "filename": held["file"], "locking": "off"}
    twin = f"{name}-twin{number}"
    qmp("blockdev-add", **{"driver": held["drv"], "node-name": twin, "file": file, "read-only": held["ro"]})
    return twin
