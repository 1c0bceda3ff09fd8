"""doctor: each check finds its problem, has a remedy, and does not stop the other checks."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scsiusb.cli.commands import doctor
from scsiusb.cli.commands.doctor_checks import Check, Machine, examine
from scsiusb.errors import DeviceUnsupported
from scsiusb.leases import folders, lease
from scsiusb.leases.lease import Seen
from scsiusb.leases.record import Record
from scsiusb.quirks import user as quirks_user
from scsiusb.usb import diagnosis
from scsiusb.usb.backend import Code, Device, UsbError
from scsiusb.usb.diagnosis import Library, Sandbox
from scsiusb.usb.system import linux, udev
from scsiusb.virtual import Bus, Stick, Unit, bot_interface, uas_interface
from tests.cli.conftest import Attached, Cli
from tests.cli.test_manage import record, seen
from tests.sticks import stick

CHECKOUT_RULE = Path(__file__).parents[2] / "udev" / udev.NAME


class Computer:
    """A simulated computer in a folder, without problems; a test adds one."""

    def __init__(self, root: Path, bus: Bus, patch: pytest.MonkeyPatch) -> None:
        self.root, self.bus, self.patch = root, bus, patch
        self.leases: list[Seen] = []
        self.holder: Record | None = None
        self.openers: list[str] = []
        self.sandbox: Sandbox | None = None
        for name in ("nodes/001", "sys", "etc/rules.d", "usr/rules.d"):
            (root / name).mkdir(parents=True)
        self.memory(16)
        self.install(CHECKOUT_RULE.read_text())
        patch.setattr(diagnosis, "NODES", root / "nodes")
        patch.setattr(diagnosis, "LIMIT", root / "memory")
        patch.setattr(diagnosis, "library", lambda: Library("1.0.30.12037", "libusb-1.0.so", True))
        patch.setattr(diagnosis, "sandbox", lambda: self.sandbox)
        patch.setattr(linux, "USB_DEVICES", root / "sys")
        patch.setattr(linux, "node", lambda device: str(self.node(device)))
        patch.setattr(linux, "openers", lambda device: self.openers)
        patch.setattr(udev, "FOLDERS", (root / "etc/rules.d", root / "usr/rules.d"))
        patch.setattr(folders, "own", lambda: [root / "leases"])
        patch.setattr(lease, "leases", lambda: self.leases)
        patch.setattr(lease, "holder", lambda info: self.holder)
        patch.setattr(quirks_user, "path", lambda: root / "quirks")
        patch.delenv(quirks_user.VARIABLE, raising=False)

    def plug(self, *sticks: Stick) -> None:
        for each in sticks:
            self.node(self.bus.plug(each)).touch()

    def node(self, device: Device) -> Path:
        return self.root / "nodes" / f"{device.bus:03}" / f"{device.number:03}"

    def install(self, rule: str, folder: str = "etc") -> None:
        (self.root / folder / "rules.d" / udev.NAME).write_text(rule)

    def memory(self, limit: int) -> None:
        (self.root / "memory").write_text(f"{limit}\n")

    def refuse(self, number: int) -> None:
        """Let opening a device node fail with this errno."""

        really = os.open

        def refused(path: Any, *arguments: Any, **others: Any) -> int:
            if str(path).startswith(str(self.root / "nodes")):
                raise OSError(number, os.strerror(number), str(path))
            return really(path, *arguments, **others)

        self.patch.setattr(os, "open", refused)

    def rows(self, platform: str = "linux", *, is_root: bool = False) -> dict[str, Check]:
        rows = list(examine(Machine(lambda: self.bus, platform, is_root)))
        assert len({row.check for row in rows}) == len(rows)
        for row in rows:
            assert row.ok or row.remedy, row
        return {row.check: row for row in rows}


@pytest.fixture
def computer(tmp_path: Path, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> Computer:
    monkeypatch.setattr(attach.bus, "close", lambda: None)  # the fixture closes it
    return Computer(tmp_path, attach.bus, monkeypatch)


def wrong(rows: dict[str, Check]) -> set[str]:
    return {name for name, row in rows.items() if not row.ok}


def test_without_problems_every_check_is_ok(computer: Computer) -> None:
    computer.plug(stick())
    rows = computer.rows()
    assert wrong(rows) == set()
    for name in ("runtime", "libusb", "hotplug", "usb", "udev rule", "usbfs memory", "leases", "devices"):
        assert name in rows
    assert rows["libusb"].detail == "1.0.30.12037, libusb-1.0.so"
    assert rows["driver 1-1"].detail == "in use by the kernel driver usb-storage"
    assert rows["permission 1-1"].detail.endswith(f"{os.sep}002 is accessible")
    assert {row.remedy for row in rows.values()} == {None}


def test_a_libusb_that_does_not_load_is_reported_and_the_other_checks_run(computer: Computer) -> None:
    def fails() -> Library:
        raise DeviceUnsupported("loading libusb: libusb cannot be loaded")

    computer.patch.setattr(diagnosis, "library", fails)
    rows = computer.rows()
    assert wrong(rows) == {"libusb"}
    assert "pip install" in str(rows["libusb"].remedy)
    assert "hotplug" not in rows


def test_the_real_library_has_a_version_and_a_path() -> None:
    library = diagnosis.library()
    assert library.version.startswith("1.0.")
    assert "usb" in library.path


def test_a_library_without_hotplug_is_polled(computer: Computer) -> None:
    computer.patch.setattr(diagnosis, "library", lambda: Library("1.0.26.1", "x", False))
    assert computer.rows()["hotplug"].ok
    assert "polling" in computer.rows()["hotplug"].detail


# --- sandboxes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sandbox", "remedy"), [(None, "modprobe"), (Sandbox.CONTAINER, "/dev/bus/usb"), (Sandbox.WSL, "usbipd attach")]
)
def test_the_remedy_without_usb_depends_on_the_system(computer: Computer, sandbox: Sandbox | None, remedy: str) -> None:
    computer.sandbox = sandbox
    (computer.root / "sys").rmdir()
    rows = computer.rows()
    assert wrong(rows) == {"usb"}
    assert str(computer.root / "sys") in rows["usb"].detail
    assert remedy in str(rows["usb"].remedy)


def test_wsl_without_devices_has_a_hint(computer: Computer) -> None:
    computer.sandbox = Sandbox.WSL
    row = computer.rows()["devices"]
    assert row.ok
    assert "usbipd attach" in str(row.remedy)


def test_sandboxes_are_known_by_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, release = tmp_path / "mark", tmp_path / "osrelease"
    monkeypatch.setattr(diagnosis, "CONTAINER_MARKS", (mark,))
    monkeypatch.setattr(diagnosis, "KERNEL_RELEASE", release)
    monkeypatch.delenv("container", raising=False)
    assert diagnosis.sandbox() is None
    mark.touch()
    assert diagnosis.sandbox() is Sandbox.CONTAINER
    release.write_text("5.15.90.1-microsoft-standard-WSL2\n")
    assert diagnosis.sandbox() is Sandbox.WSL


# --- the udev rule --------------------------------------------------------------------------------


def test_a_user_needs_the_rule_and_root_does_not(computer: Computer) -> None:
    (computer.root / "etc/rules.d" / udev.NAME).unlink()
    row = computer.rows()["udev rule"]
    assert not row.ok
    assert "scsiusb doctor --rule | sudo tee /etc/udev/rules.d/70-scsiusb.rules" in str(row.remedy)
    assert computer.rows(is_root=True)["udev rule"].ok


def test_an_outdated_rule_is_found_and_comments_do_not_matter(computer: Computer) -> None:
    computer.install("# another comment\n\n" + CHECKOUT_RULE.read_text())
    assert computer.rows()["udev rule"].ok
    computer.install(CHECKOUT_RULE.read_text().replace("08??50", "08??51"))
    row = computer.rows()["udev rule"]
    assert not row.ok
    assert "not the one of this version" in row.detail


def test_a_rule_of_the_distribution_is_used_unless_etc_has_one(computer: Computer) -> None:
    (computer.root / "etc/rules.d" / udev.NAME).unlink()
    computer.install(CHECKOUT_RULE.read_text(), "usr")
    assert computer.rows()["udev rule"].ok
    computer.install("")
    assert not computer.rows()["udev rule"].ok


def test_doctor_prints_the_rule_for_tee(cli: Cli) -> None:
    ended = cli("doctor", "--rule")
    assert (ended.status, ended.err) == (0, "")
    assert ended.text.splitlines() == CHECKOUT_RULE.read_text().splitlines()


def test_the_rule_of_a_wheel_is_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / udev.NAME).write_text("packed\n")
    monkeypatch.setattr(udev, "files", lambda package: tmp_path)
    assert udev.rule() == "packed\n"


# --- the kernel's memory for transfers ------------------------------------------------------------


@pytest.mark.parametrize(("limit", "ok"), [(0, True), (1000, True), (16, True), (15, False), (1, False)])
def test_usbfs_memory(computer: Computer, limit: int, ok: bool) -> None:
    computer.memory(limit)
    row = computer.rows()["usbfs memory"]
    assert row.ok is ok
    assert ("no limit" if limit == 0 else f"{limit} MB") in row.detail


def test_without_usbcore_there_is_no_row_for_memory(computer: Computer) -> None:
    (computer.root / "memory").unlink()
    assert "usbfs memory" not in computer.rows()


# --- each device ----------------------------------------------------------------------------------


def test_a_device_that_the_user_may_not_open(computer: Computer) -> None:
    computer.plug(stick())
    computer.refuse(errno.EACCES)
    row = computer.rows()["permission 1-1"]
    assert not row.ok
    assert "nodes" in row.detail
    assert "udevadm trigger" in str(row.remedy)
    assert "--rule" not in str(row.remedy), "the rule is installed"
    (computer.root / "etc/rules.d" / udev.NAME).unlink()
    assert "--rule" in str(computer.rows()["permission 1-1"].remedy)


def test_root_of_a_container_without_permission(computer: Computer) -> None:
    computer.plug(stick())
    computer.refuse(errno.EPERM)
    row = computer.rows(is_root=True)["permission 1-1"]
    assert not row.ok
    assert "--device-cgroup-rule" in str(row.remedy)


def test_a_node_that_is_not_in_the_container(computer: Computer) -> None:
    computer.plug(stick())
    next(computer.root.glob("nodes/001/*")).unlink()
    assert "/dev/bus/usb" in str(computer.rows()["permission 1-1"].remedy)


def unbound(computer: Computer, driver: str | None) -> None:
    computer.plug(stick())
    computer.patch.setattr(computer.bus, "driver", lambda device, interface: driver)


def test_a_disk_without_driver_and_program(computer: Computer) -> None:
    unbound(computer, None)
    row = computer.rows()["driver 1-1"]
    computer.patch.undo()
    assert not row.ok
    assert "scsiusb recover 1-1" in str(row.remedy)


def test_a_disk_that_a_program_uses(computer: Computer) -> None:
    unbound(computer, "usbfs")
    unknown = computer.rows()["driver 1-1"]
    computer.openers = ["pid 12 (dd\x1b)"]
    opener = computer.rows()["driver 1-1"]
    computer.holder = record(pid=13, command="python x.py")
    holder = computer.rows()["driver 1-1"]
    computer.patch.undo()
    assert all(row.ok for row in (unknown, opener, holder))
    assert unknown.detail == "in use by another program"
    assert opener.detail == "in use by pid 12 (dd\N{REPLACEMENT CHARACTER})"
    assert holder.detail == "in use by pid 13 (python x.py)"


def test_a_mounted_disk_is_ok_with_a_hint(computer: Computer) -> None:
    mounted = stick()
    mounted.uses = ["/dev/sda1 is mounted on /media/a"]
    computer.plug(mounted, stick())
    rows = computer.rows()
    assert wrong(rows) == set()
    assert rows["uses 1-1"].detail == "/dev/sda1 is mounted on /media/a"
    assert "unmount" in str(rows["uses 1-1"].remedy)
    assert "uses 1-2" not in rows


def test_a_device_that_supports_only_uas(computer: Computer) -> None:
    computer.plug(Stick([Unit()], interfaces=[uas_interface(alternate=0)]))
    rows = computer.rows()
    assert "only UAS" in rows["protocol 1-1"].detail
    assert wrong(rows) == set()


def test_a_device_that_cannot_be_used(computer: Computer) -> None:
    computer.plug(Stick([Unit()], interfaces=[replace(bot_interface(), protocol=0x01)]), stick())
    rows = computer.rows()
    assert "not use it" in rows["protocol 1-1"].detail
    assert "it speaks CBI" in rows["protocol 1-1"].detail
    assert "protocol 1-2" not in rows


def test_an_exception_in_a_check_is_a_row(computer: Computer) -> None:
    computer.plug(stick(), stick())

    def fails(device: Device, interface: int) -> list[str]:
        if device.address == "1-1":
            raise OSError(errno.EIO, "Input/output error", "/proc/swaps")
        return ["/dev/sdb is used as swap"]

    computer.patch.setattr(computer.bus, "uses", fails)
    rows = computer.rows()
    computer.patch.undo()
    assert wrong(rows) == {"uses 1-1"}
    assert "/proc/swaps" in rows["uses 1-1"].detail
    assert rows["uses 1-2"].ok


def test_a_bus_that_cannot_be_listed_is_a_row(computer: Computer) -> None:
    def fails() -> list[Device]:
        raise UsbError(Code.IO)

    computer.patch.setattr(computer.bus, "devices", fails)
    rows = computer.rows()
    computer.patch.undo()
    assert wrong(rows) == {"devices"}


# --- leases ---------------------------------------------------------------------------------------


def test_orphans_have_recover_as_remedy(computer: Computer) -> None:
    computer.leases = [seen("live"), seen("orphaned", address="2-1", pid=77, command="python a.py")]
    rows = computer.rows()
    assert wrong(rows) == {"orphan 2-1"}
    assert "pid 77 (python a.py)" in rows["orphan 2-1"].detail
    assert rows["orphan 2-1"].remedy == "scsiusb recover 2-1"
    assert rows["leases"].detail.startswith("1 device in use")


def test_leases_are_in_the_first_usable_folder(computer: Computer, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    computer.patch.setattr(folders, "own", lambda: [blocked, tmp_path / "second"])
    row = computer.rows()["lease folder"]
    assert (row.ok, row.detail) == (True, str(tmp_path / "second"))


def test_no_usable_folder_for_leases(computer: Computer, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    computer.patch.setattr(folders, "own", lambda: [blocked])
    row = computer.rows()["lease folder"]
    assert not row.ok
    assert str(blocked) in row.detail
    assert "XDG_RUNTIME_DIR" in str(row.remedy)
    computer.patch.setattr(folders, "own", list)
    assert not computer.rows()["lease folder"].ok


# --- the user's quirks ----------------------------------------------------------------------------


def test_the_users_quirks_are_read(computer: Computer) -> None:
    assert computer.rows()["quirks"].detail == f"0 rows in SCSIUSB_QUIRKS; {computer.root / 'quirks'} does not exist"
    computer.patch.setenv("SCSIUSB_QUIRKS", "1:2:r,3:4:m")
    (computer.root / "quirks").write_text("1:2:r\n")
    assert computer.rows()["quirks"].detail == f"2 rows in SCSIUSB_QUIRKS; {computer.root / 'quirks'} is valid"


def test_invalid_quirks_are_reported(computer: Computer) -> None:
    (computer.root / "quirks").write_text("\nnonsense\n")
    in_file = computer.rows()["quirks"]
    computer.patch.setenv("SCSIUSB_QUIRKS", "bad")
    in_variable = computer.rows()["quirks"]
    assert not in_file.ok
    assert f"{computer.root / 'quirks'}, line 2" in in_file.detail
    assert in_file.remedy == "correct it; `scsiusb quirks --list` shows the letters"
    assert (in_variable.ok, in_variable.detail.startswith("SCSIUSB_QUIRKS: 'bad'")) == (False, True)


# --- other platforms ------------------------------------------------------------------------------


def test_macos_wants_root_and_unmounted_disks(computer: Computer) -> None:
    computer.plug(stick())
    rows = computer.rows("darwin")
    assert wrong(rows) == {"capture"}
    assert "diskutil unmountDisk" in str(rows["capture"].remedy)
    assert not {"usb", "udev rule", "usbfs memory", "driver 1-1", "permission 1-1"} & set(rows)
    assert wrong(computer.rows("darwin", is_root=True)) == set()


@pytest.mark.parametrize(
    ("code", "remedy"), [(None, None), (Code.NOT_SUPPORTED, "Zadig"), (Code.NOT_FOUND, "Zadig"), (Code.ACCESS, "close")]
)
def test_windows_wants_winusb(computer: Computer, code: Code | None, remedy: str | None) -> None:
    computer.plug(stick())

    def fails(device: Device) -> Any:
        raise UsbError(code or Code.OK)

    if code is not None:
        computer.patch.setattr(computer.bus, "open", fails)
    row = computer.rows("win32")["permission 1-1"]
    assert row.ok is (code is None)
    assert remedy is None or remedy in str(row.remedy)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(*rows: Check) -> None:
        monkeypatch.setattr(doctor, "examine", lambda machine: iter(rows))

    return put


def test_json_has_the_contracts_keys_and_the_status_is_99(cli: Cli, rows: Callable[..., None]) -> None:
    rows(Check("a", True, "fine"), Check("b", False, "broken", "repair it"))
    ended = cli("doctor", "--json")
    assert ended.status == 99
    assert ended.json == [
        {"check": "a", "ok": True, "detail": "fine", "remedy": None},
        {"check": "b", "ok": False, "detail": "broken", "remedy": "repair it"},
    ]
    assert ended.line.startswith("scsiusb: error: 1 of 2 checks ")
    assert ended.err.count("\n") == 1


def test_a_line_for_each_check_with_an_arrow_to_the_remedy(cli: Cli, rows: Callable[..., None]) -> None:
    rows(Check("a", True, "fine"), Check("long name", False, "broken", "repair it"))
    arrow = "→" if (sys.stdout.encoding or "").lower().startswith("utf") else "->"
    assert cli("doctor").text.splitlines() == [
        "ok  a          fine",
        "!!  long name  broken",
        f"      {arrow} repair it",
    ]


def test_no_problem_is_status_0(cli: Cli, rows: Callable[..., None]) -> None:
    rows(Check("a", True, "fine", "a hint"))
    ended = cli("doctor")
    assert (ended.status, ended.err) == (0, "")


def test_it_checks_this_machine_and_changes_nothing(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(stick())
    monkeypatch.setattr(attach.bus, "close", lambda: None)
    monkeypatch.setattr(doctor, "libusb", lambda: attach.bus)
    monkeypatch.setattr("scsiusb.leases.orphans.recover", lambda *_: pytest.fail("recovered"))
    ended = cli("doctor", "--json")
    assert ended.status in (0, 99)
    assert all(row.keys() == {"check", "ok", "detail", "remedy"} for row in ended.json)
    assert [row["detail"] for row in ended.json if row["check"] == "devices"] == ["scsiusb Virtual Stick at 1-1"]
    assert attach.bus.wire.log == []
