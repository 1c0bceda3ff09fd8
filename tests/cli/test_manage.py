"""leases and recover: which process uses which device, and recovery of orphans."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scsiusb.cli.commands import doctor, manage
from scsiusb.leases import folders, lease
from scsiusb.leases import orphans as recovery
from scsiusb.leases.lease import Lease, Seen
from scsiusb.leases.orphans import Recovered
from scsiusb.leases.record import Record
from scsiusb.usb.backend import Code, Device, UsbError
from scsiusb.usb.interface import find
from scsiusb.virtual import Bus, Identity, Stick
from scsiusb.virtual.bus.connection import Connection
from tests.cli.conftest import Attached, Cli
from tests.leases.usbfs import RECORD
from tests.sticks import stick


def record(**fields: Any) -> Record:
    return replace(RECORD, **fields)


def seen(state: str, **fields: Any) -> Seen:
    return Seen(record(**fields), state, Path("/run/lease"), in_command=False)


class Leases:
    """The leases on this machine, and the outcome of the recovery of orphans."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[Seen] = []
        self.outcome: tuple[str, bool] = "kernel driver usb-storage is bound again", True
        self.recovered: list[str | None] = []
        self.holder: Record | None = None
        patch.setattr(lease, "leases", lambda: list(self.seen))
        patch.setattr(lease, "holder", lambda info: self.holder)
        patch.setattr(recovery, "recover", self._recover)

    def _recover(self, address: str | None = None) -> list[Recovered]:
        self.recovered.append(address)
        orphans = [each for each in self.seen if each.state == "orphaned"]
        meant = [each for each in orphans if address in (None, each.record.address)]
        self.seen = [each for each in self.seen if each not in meant]
        return [Recovered(each.record, *self.outcome) for each in meant]


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Leases:
    return Leases(monkeypatch)


@pytest.fixture(autouse=True)
def usb(attach: Attached, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `recover DEVICE` and `doctor` find the sticks of the fixture."""
    with monkeypatch.context() as patch:
        patch.setattr(attach.bus, "close", lambda: None)
        for module in (manage, doctor):
            patch.setattr(module, "libusb", lambda: attach.bus)
        yield


# --- leases ---------------------------------------------------------------------------------------


def test_leases_have_the_contracts_keys_first(cli: Cli, leases: Leases) -> None:
    leases.seen = [seen("live"), seen("orphaned", address="1-1.4", serial=None, driver=None)]
    ended = cli("leases", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert list(ended.json[0].items())[:6] == [
        ("pid", 1234),
        ("command", "python backup.py"),
        ("address", "2-1"),
        ("serial", "4C53"),
        ("since", "2026-11-22T16:11:00+01:00"),
        ("state", "live"),
    ]
    assert ended.json[0]["driver"] == "usb-storage"
    assert (ended.json[1]["state"], ended.json[1]["serial"], ended.json[1]["driver"]) == ("orphaned", None, None)


def test_leases_recovers_nothing(cli: Cli, leases: Leases) -> None:
    """Otherwise orphans would never be shown."""
    leases.seen = [seen("orphaned")]
    ended = cli("leases")
    assert ended.status == 0
    assert ended.text.splitlines()[1].split()[:4] == ["2-1", "4C53", "orphaned", "1234"]
    assert ended.err == "1 device not given back to the kernel; run `scsiusb recover`\n"
    assert leases.recovered == []


def test_no_leases(cli: Cli, leases: Leases) -> None:
    assert cli("leases", "--json").json == []
    ended = cli("leases")
    assert (ended.status, ended.out, ended.err) == (0, b"", "no scsiusb process uses a device\n")


def test_a_lease_on_a_terminal(screen: Cli, leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    leases.seen = [seen("live")]
    assert len(screen("leases").text.splitlines()) == 3


def test_the_user_has_a_name_if_the_system_knows_it(cli: Cli, leases: Leases) -> None:
    leases.seen = [seen("live", uid=4_000_000_000), seen("live")]
    assert [row["user"] for row in cli("leases", "--json").json] == ["4000000000", None]
    if os.name == "posix":
        leases.seen = [seen("live", uid=0)]
        assert cli("leases", "--json").json[0]["user"] == "root"


# --- list -----------------------------------------------------------------------------------------


def test_list_shows_the_lease_of_a_device(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(stick(), stick())
    monkeypatch.setattr("scsiusb.leases.lease.holder", lambda info: RECORD if info.address == "1-2" else None)
    rows = cli("list", "--json").json
    assert rows[0]["lease"] is None
    assert rows[1]["lease"] == {"pid": 1234, "command": "python backup.py", "since": RECORD.since}


# --- recover --------------------------------------------------------------------------------------


def test_recover_gives_back_every_orphan(cli: Cli, leases: Leases) -> None:
    leases.seen = [seen("live", address="1-1"), seen("orphaned"), seen("orphaned", address="3-1", serial=None)]
    ended = cli("recover", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert ended.json[0] == {
        "address": "2-1",
        "serial": "4C53",
        "pid": 1234,
        "driver": "usb-storage",
        "done": "kernel driver usb-storage is bound again",
        "ok": True,
    }
    assert [row["address"] for row in ended.json] == ["2-1", "3-1"]


def test_nothing_to_recover_is_good(cli: Cli, leases: Leases) -> None:
    assert cli("recover", "--json").json == []
    ended = cli("recover")
    assert (ended.status, ended.out, ended.err) == (0, b"", "nothing to give back\n")


@pytest.mark.parametrize("words", ["2-1", "2-1:1.0", "0781:5581", "serial=4C53"])
def test_an_orphan_by_name_even_if_its_device_is_gone(cli: Cli, leases: Leases, words: str) -> None:
    leases.seen = [seen("orphaned"), seen("orphaned", address="3-1", name="3-1:1.0", serial="x", product_id=1)]
    assert [row["address"] for row in cli("recover", words, "--json").json] == ["2-1"]
    assert leases.recovered == ["2-1"]


def test_every_orphaned_interface_of_a_device(cli: Cli, leases: Leases) -> None:
    leases.seen = [seen("orphaned", address=name, name=name) for name in ("2-1:1.0", "2-1:1.1")]
    assert len(cli("recover", "2-1", "--json").json) == 2


def test_no_permission_is_status_15_and_the_result_is_shown(
    cli: Cli, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases.seen = [seen("orphaned")]
    leases.outcome = "permission denied", False
    monkeypatch.setattr(manage, "is_root", lambda: False)
    ended = cli("recover", "--json")
    assert ended.status == 15
    assert ended.json[0]["ok"] is False
    assert ended.line.startswith("scsiusb: error: 2-1 could not be given back: permission denied; ")
    assert "sudo scsiusb recover" in ended.err


def test_a_failure_as_root_is_a_transport_error(cli: Cli, leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    leases.seen = [seen("orphaned")]
    leases.outcome = "the device does not answer", False
    monkeypatch.setattr(manage, "is_root", lambda: True)
    ended = cli("recover")
    assert ended.status == 35
    assert "unplug" in ended.err


def test_from_a_real_lease_to_nothing_left(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process dies and its device is gone: all commands report the orphan until `recover` removes it."""
    monkeypatch.setattr(folders, "own", lambda: [tmp_path / "leases"])
    monkeypatch.setattr(folders, "RUN", tmp_path)
    monkeypatch.setattr(folders, "USERS", tmp_path)
    (info,) = find(Bus(stick(), number=99))
    left = Lease.acquire(info)
    assert cli("leases", "--json").json[0]["state"] == "live"
    left.after_fork()  # as if its process had ended
    (row,) = cli("leases", "--json").json
    assert (row["state"], row["pid"], row["address"], row["serial"]) == ("orphaned", os.getpid(), "99-1", info.serial)
    assert "orphan 99-1" in [row["check"] for row in cli("doctor", "--json").json]
    (row,) = cli("recover", "serial=0123456789AB", "--json").json
    assert (row["address"], row["pid"], row["ok"]) == ("99-1", os.getpid(), True)
    assert cli("leases", "--json").json == []
    assert cli("recover", "--json").json == []


# --- recover DEVICE, of a device without a lease --------------------------------------------------


def orphaned_by_others(attach: Attached, *sticks: Stick) -> None:
    """Make the state after the crash of another libusb program: no driver, no lease."""
    for each in sticks:
        attach(each)
        connection = attach.bus._connection_of(each)
        assert connection is not None
        connection.unbind(0)


@pytest.mark.parametrize("words", ["1-1", "1-1:1.0", "1209:0001", "serial=0123456789AB"])
def test_recover_binds_a_driver_after_another_program(cli: Cli, attach: Attached, leases: Leases, words: str) -> None:
    orphaned_by_others(attach, stick())
    ended = cli("recover", words, "--json")
    assert (ended.status, ended.err) == (0, "")
    done = "kernel driver usb-storage is bound again"
    row = {"address": "1-1", "serial": "0123456789AB", "pid": None, "driver": "usb-storage", "done": done, "ok": True}
    assert ended.json == [row]
    assert attach.devices()[0].driver == "usb-storage"


def test_an_orphan_that_is_not_recovered_does_not_keep_its_device_from_recovery(
    cli: Cli, attach: Attached, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a lease that another user has locked."""
    orphaned_by_others(attach, stick())
    leases.seen = [seen("orphaned", address="1-1")]
    monkeypatch.setattr(recovery, "recover", lambda address=None: [])
    assert [row["ok"] for row in cli("recover", "1-1", "--json").json] == [True]
    assert attach.devices()[0].driver == "usb-storage"


def test_an_orphan_whose_lease_another_process_removes_is_no_error(
    cli: Cli, attach: Attached, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases.seen = [seen("orphaned", address="7-7")]
    monkeypatch.setattr(recovery, "recover", lambda address=None: [])
    assert cli("recover", "7-7", "--json").json == []


def test_without_a_name_only_orphans_of_scsiusb_are_recovered(cli: Cli, attach: Attached, leases: Leases) -> None:
    orphaned_by_others(attach, stick())
    assert cli("recover", "--json").json == []
    assert attach.devices()[0].driver is None
    cli("recover", "1-1")


def test_a_device_with_a_driver_or_in_use_is_not_changed(
    cli: Cli, attach: Attached, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(stick())
    monkeypatch.setattr(attach.bus, "open", lambda device: pytest.fail("opened"))
    driven = cli("recover", "1-1", "--json")
    assert (driven.status, driven.json) == (0, [])
    assert driven.err == "1-1 is not changed: the kernel driver usb-storage uses it\n"
    monkeypatch.setattr(Connection, "driver", lambda *_: "usbfs")
    assert "a program uses it" in cli("recover", "1-1").err
    leases.holder = record(pid=99)
    assert "pid 99 (python backup.py) uses it" in cli("recover", "1-1").err
    monkeypatch.setattr(Connection, "driver", lambda *_: None)
    assert "pid 99 (python backup.py) uses it" in cli("recover", "1-1").err, "the process is about to claim it"
    monkeypatch.undo()


def test_a_device_that_only_root_may_open(
    cli: Cli, attach: Attached, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = stick()
    orphaned_by_others(attach, locked)
    locked.accessible = False
    with monkeypatch.context() as patch:
        patch.setattr(manage, "is_root", lambda: False)
        ended = cli("recover", "1-1", "--json")
    assert ended.status == 15
    assert (ended.json[0]["ok"], ended.json[0]["done"]) == (False, "permission denied")
    locked.accessible = True
    assert cli("recover", "1-1").status == 0


@pytest.mark.parametrize(
    ("code", "status", "rows"), [(Code.NOT_FOUND, 35, 1), (Code.NOT_SUPPORTED, 0, 0), (Code.IO, 35, None)]
)
def test_no_driver_can_be_bound(
    cli: Cli, attach: Attached, leases: Leases, monkeypatch: pytest.MonkeyPatch, code: Code, status: int, rows: int
) -> None:
    orphaned_by_others(attach, stick())

    def fails(device: Device) -> Any:
        raise UsbError(code)

    with monkeypatch.context() as patch:
        patch.setattr(manage, "is_root", lambda: True)
        patch.setattr(attach.bus, "open", fails)
        ended = cli("recover", "1-1", "--json")
    assert ended.status == status
    assert rows is None or len(ended.json) == rows
    cli("recover", "1-1")


@pytest.mark.parametrize("words", ["", "9-9", "dead:beef", "serial=", "virtual:"])
def test_a_name_that_matches_nothing(cli: Cli, attach: Attached, leases: Leases, words: str) -> None:
    attach(stick())
    leases.seen = [seen("orphaned", serial=None)]
    assert cli("recover", words).failed(15, "there is no orphaned device of that name", "scsiusb leases")
    assert leases.recovered == []


def test_a_name_that_matches_two_attached_devices(cli: Cli, attach: Attached, leases: Leases) -> None:
    orphaned_by_others(attach, stick(), Stick.formatted(identity=Identity(serial="other")))
    assert cli("recover", "1209:0001").failed(15, "1-1", "1-2")
    for address in ("1-1", "1-2"):
        cli("recover", address)
