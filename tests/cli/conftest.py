"""Fixtures that run the command line in this process, on virtual sticks in place of attached devices."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from scsiusb.cli import device as session
from scsiusb.cli.app import run
from scsiusb.disk.disk import Disk
from scsiusb.opening import VIRTUAL, open_on
from scsiusb.opening import open as open_disk
from scsiusb.usb.interface import InterfaceInfo, find
from scsiusb.virtual import Stick
from tests.sticks import InterceptedBus


@dataclass(frozen=True)
class CliResult:
    """The result of a command."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def record(self) -> Any:
        """The JSON without the device, which must be named."""
        record = self.json
        device = record.pop("device")
        assert device.keys() == {"address", "vid", "pid", "serial", "lun"}
        assert device["address"].startswith("1-")
        return record

    @property
    def line(self) -> str:
        """The error line; an error as JSON as the line that it would be."""
        if not self.err.startswith("{"):
            return self.err
        (kind, error), *others = json.loads(self.err).items()
        assert (kind, others) == ("error", [])
        assert error.keys() == {"type", "message", "remedy", "status", "sense", "lba"}
        assert error["status"] == self.status
        assert self.err.count("\n") == 1
        return f"scsiusb: error: {error['message']}; {error['remedy']}\n"

    def failed(self, status: int, *words: str) -> bool:
        """Check the status, one error line (or JSON) with all of the words and a remedy, and no output on stdout."""
        line = self.line
        assert line.startswith("scsiusb: error: ")
        assert line.count("\n") == 1
        assert line.endswith("\n")
        assert "; " in line
        assert "Traceback" not in line
        for word in words:
            assert word in line
        assert self.status == status
        assert self.out == b""
        return True


Cli = Callable[..., CliResult]


@dataclass
class Attached:
    """The sticks that are plugged in, in place of the devices of the machine."""

    bus: InterceptedBus = field(default_factory=InterceptedBus)

    def __call__(self, *sticks: Stick) -> InterceptedBus:
        for stick in sticks:
            self.bus.plug(stick)
        return self.bus

    def open(
        self,
        device: str | None,
        *,
        lun: int,
        timeout: float | None,
        trace: str | None,
        quirks: str | None = None,
        transport: str = "auto",
    ) -> Disk:
        if device is not None and device.startswith(VIRTUAL):
            return open_disk(device, lun=lun, timeout=timeout, trace=trace, quirks=quirks, transport=transport)
        return open_on(self.bus, device, lun=lun, timeout=timeout, quirks=quirks, transport=transport)

    def devices(self) -> list[InterfaceInfo]:
        return find(self.bus)


@pytest.fixture(autouse=True)
def attach(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attached]:
    """Plug sticks in; after the test, no handle may be open, and every driver must be bound again."""
    attached = Attached()
    monkeypatch.setattr(session, "open_disk", attached.open)
    monkeypatch.setattr(session, "devices", attached.devices)
    yield attached
    assert attached.bus.handles == ()
    for info in attached.devices():
        assert info.unsupported or info.driver in ("usb-storage", "uas")
    attached.bus.close()


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    def call(*words: object) -> CliResult:
        capfdbinary.readouterr()
        status = run([str(word) for word in words])
        out, err = capfdbinary.readouterr()
        return CliResult(status, out, err.decode())

    return call


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> Cli:
    """Run as `cli` does, with stdout and stderr on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    def call(*words: object) -> CliResult:
        with monkeypatch.context() as patch:
            for stream in (sys.stdout, sys.stderr):
                patch.setattr(stream, "isatty", lambda: True)
            return cli(*words)

    return call
