"""Selecting a device by a selector, and opening it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import scsiusb
from scsiusb import DeviceBusy, DeviceClosed, DeviceGone, DeviceNotFound, DeviceNotUnique, DeviceUnsupported, ledger
from scsiusb.opening import open_on, select
from scsiusb.usb.backend import BlockDisk, Code, UsbError
from scsiusb.usb.interface import InterfaceInfo, find
from scsiusb.usb.port import Port
from scsiusb.virtual import Bus, Identity, Memory, Stick, Unit, bot_interface, hid_interface
from tests.sticks import wait_until


@pytest.fixture
def bus() -> Bus:
    identities = [Identity(vid=0x1234, pid=0xABCD, serial="A"), Identity(vid=0x1234, pid=0xABCD, serial="B")]
    return Bus(*(Stick([Unit(Memory(512))], identity) for identity in identities), number=2)


@pytest.mark.parametrize(
    ("selector", "address"), [("2-1", "2-1"), ("2-2:1.0", "2-2"), ("serial=B", "2-2"), ("serial=A", "2-1")]
)
def test_a_device_by_address_name_or_serial(bus: Bus, selector: str, address: str) -> None:
    assert select(find(bus), selector).address == address


def test_the_only_device_needs_no_selector(bus: Bus) -> None:
    bus.unplug(bus.devices()[0])
    assert select(find(bus), None).address == "2-2"
    assert select(find(bus), "1234:abcd").address == "2-2"
    assert select(find(bus), "1234:ABCD").address == "2-2"


@pytest.mark.parametrize("selector", [None, "1234:abcd"])
def test_two_matches_are_an_error_that_lists_them(bus: Bus, selector: str | None) -> None:
    with pytest.raises(DeviceNotUnique, match=r"2-1 \(1234:abcd, serial A\), 2-2 \(1234:abcd, serial B\)"):
        select(find(bus), selector)


@pytest.mark.parametrize("selector", ["2-3", "serial=", "serial=AB", "ffff:ffff", "2", ""])
def test_no_match_is_an_error(bus: Bus, selector: str) -> None:
    with pytest.raises(DeviceNotFound, match="no attached device matches"):
        select(find(bus), selector)


def test_nothing_attached_is_an_error() -> None:
    with pytest.raises(DeviceNotFound, match="no mass-storage device is attached"):
        select(find(Bus()), None)


@pytest.mark.parametrize("lun", [-1, 16])
def test_an_impossible_lun_is_refused_before_anything_is_opened(bus: Bus, lun: int) -> None:
    with pytest.raises(ValueError, match=f"LUN {lun}"):
        open_on(bus, "2-1", lun=lun)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_an_impossible_timeout_is_refused_before_anything_is_opened(bus: Bus, timeout: float) -> None:
    with pytest.raises(ValueError, match="a timeout of"):
        open_on(bus, "2-1", timeout=timeout)


def test_a_lun_that_is_not_an_int_is_refused(bus: Bus) -> None:
    with pytest.raises(TypeError):
        open_on(bus, "2-1", lun=0.0)  # type: ignore[arg-type]


def test_a_lun_that_the_device_does_not_have(bus: Bus) -> None:
    with pytest.raises(DeviceNotFound, match="has no LUN 9, its last is 0"):
        open_on(bus, "2-1", lun=9)
    assert not bus.handles
    assert bus.driver(bus.devices()[0], 0) == "usb-storage"


def test_a_device_in_use_by_another_handle(bus: Bus) -> None:
    with Port(bus, find(bus)[0]), pytest.raises(DeviceBusy):
        open_on(bus, "2-1")


def test_a_device_opened_twice_is_shared(bus: Bus) -> None:
    with open_on(bus, "2-1") as first, open_on(bus, "2-1") as second:
        first.write(0, bytes(512))
        assert second.read(0, 1) == bytes(512)
        assert len(bus.handles) == 1


def test_an_interface_found_before_a_replug_is_gone(bus: Bus) -> None:
    old = find(bus)[0]
    with open_on(bus, old) as disk:
        assert disk.blocks == 1
    stick = Stick([Unit(Memory(512))])
    bus.unplug(bus.devices()[0])
    bus.plug(stick, (1,))
    with pytest.raises(DeviceGone):
        open_on(bus, old)
    wait_until(lambda: not ledger.outstanding())  # the watcher's thread may notice it first, and then ends by itself


@pytest.fixture
def reused() -> tuple[Bus, InterfaceInfo, Memory]:
    """A bus, an interface found on it, and the memory of another stick that got the same number since."""
    mine, precious = Stick.formatted(identity=Identity(serial="MINE")), Memory(b"B" * (1 << 20))
    bus = Bus(mine)
    (old,) = find(bus)
    bus.unplug(mine)
    bus._last -= 1
    bus.plug(Stick([Unit(precious)], identity=Identity(serial="PRECIOUS")))
    assert find(bus)[0].device.number == old.device.number
    return bus, old, precious


def test_another_stick_with_the_number_of_the_one_that_was_found_is_not_opened(
    reused: tuple[Bus, InterfaceInfo, Memory],
) -> None:
    bus, old, precious = reused
    with pytest.raises(DeviceGone), open_on(bus, old) as disk:
        disk.write(0, b"x" * 512)
    assert bytes(precious.data) == b"B" * (1 << 20)
    assert bus.handles == ()


def test_an_open_stick_is_not_shared_through_what_was_found_of_another(
    reused: tuple[Bus, InterfaceInfo, Memory],
) -> None:
    bus, old, _ = reused
    with open_on(bus) as disk:
        with pytest.raises(DeviceGone, match="both have the same number"):
            open_on(bus, old)
        assert disk.read(0, 1) == b"B" * 512


def test_a_virtual_stick_in_a_file(tmp_path: Path) -> None:
    image = tmp_path / "disk: image.img"
    image.write_bytes(bytes(512) + b"second".ljust(512, b"\0"))
    with scsiusb.open(f"virtual:{image}") as disk:
        assert disk.blocks == 2
        assert disk.read(1, 1).startswith(b"second")
        disk.write(0, b"\x01" * 512)
    assert image.read_bytes()[:512] == b"\x01" * 512


def test_a_formatted_virtual_stick_in_memory() -> None:
    with scsiusb.open("virtual:") as disk:
        assert disk.read(0, 1)[510:] == b"\x55\xaa"


def test_a_virtual_stick_in_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(bytes(513))
    with pytest.raises(ValueError):
        scsiusb.open(f"virtual:{tmp_path / 'odd'}")
    with pytest.raises(FileNotFoundError):
        scsiusb.open(f"virtual:{tmp_path / 'none'}")


def test_closing_twice_is_allowed_and_reading_then_is_an_error(tmp_path: Path) -> None:
    disk = scsiusb.open("virtual:")
    disk.close()
    disk.close()
    with pytest.raises(DeviceClosed, match="was closed; open it again"):
        disk.read(0, 1)


def test_a_libusb_that_cannot_be_loaded_raises_device_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise UsbError(Code.NOT_SUPPORTED, "libusb cannot be loaded")

    monkeypatch.setattr("scsiusb.usb.libusb.backend.LibusbBackend.__init__", fail)
    with pytest.raises(scsiusb.DeviceUnsupported, match="libusb cannot be loaded"):
        scsiusb.devices()


def test_devices_returns_interface_infos() -> None:
    for info in scsiusb.devices():
        assert info.protocol in ("bot", "uas")


def test_names_are_exported_lazily() -> None:
    assert set(scsiusb.__all__) <= set(dir(scsiusb))
    assert all(getattr(scsiusb, name) for name in scsiusb.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        scsiusb.nothing  # noqa: B018


# --- the forms of a DEVICE ------------------------------------------------------------------------


@pytest.fixture
def reader() -> Bus:
    """A card reader of which the kernel has made two disks."""
    stick = Stick([Unit(Memory(512)), Unit(Memory(1024))])
    stick.disks = (BlockDisk("/dev/sdy", 0, 512), BlockDisk("/dev/sdz", 1, 1024, ("/mnt",)))
    return Bus(stick)


def test_a_node_selects_the_device_and_the_logical_unit(reader: Bus) -> None:
    with open_on(reader, "/dev/sdz") as disk:
        assert (disk.unit.lun, disk.blocks) == (1, 2)
    with open_on(reader, "/dev/sdy", lun=0) as disk:
        assert (disk.unit.lun, disk.blocks) == (0, 1)


def test_a_node_with_another_lun_is_refused(reader: Bus) -> None:
    with pytest.raises(ValueError, match=r"/dev/sdz is LUN 1 of .*, not LUN 0; leave out the LUN"):
        open_on(reader, "/dev/sdz", lun=0)


def test_a_link_to_a_node_is_followed(reader: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "realpath", {"/dev/disk/by-id/usb-x": "/dev/sdz"}.__getitem__)
    with open_on(reader, "/dev/disk/by-id/usb-x") as disk:
        assert disk.unit.lun == 1


@pytest.mark.parametrize("words", ["/dev/sdz1", "/dev/sd", "/dev/null"])
def test_another_node_is_not_found(reader: Bus, words: str) -> None:
    with pytest.raises(DeviceNotFound, match="no attached device matches"):
        open_on(reader, words)


@pytest.mark.parametrize("words", ["foo", "virtual", "2_1", "2-1.", "sda", "1:2:3", " 1-1"])
def test_words_that_are_no_device_say_what_one_is(reader: Bus, words: str) -> None:
    with pytest.raises(DeviceNotFound, match=r"it is not a DEVICE; give an address such as 2-1, VID:PID, .* /dev/sdX"):
        open_on(reader, words)


def test_a_file_is_suggested_as_a_virtual_stick(reader: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.img").write_bytes(bytes(512))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeviceNotFound, match=r"it is not a DEVICE; did you mean virtual:s\.img\?"):
        open_on(reader, "s.img")


def test_short_ids_are_explained(reader: Bus) -> None:
    with pytest.raises(DeviceNotFound, match="four hex digits each"):
        open_on(reader, "123:45")


def test_an_interface_that_cannot_be_driven_is_found_and_refused() -> None:
    floppy = replace(bot_interface(1, address=3), protocol=0x00)
    with pytest.raises(DeviceUnsupported, match="is not supported: it speaks CBI"):
        open_on(Bus(Stick({1: [Unit(Memory(512))]}, interfaces=[hid_interface(0), floppy])))
    both = Bus(Stick({0: [Unit(Memory(512))], 1: [Unit(Memory(512))]}, interfaces=[bot_interface(0), floppy]))
    with open_on(both) as disk, open_on(both, "1-1") as same:
        assert disk.unit.transport.info == same.unit.transport.info
        assert disk.unit.transport.info.unsupported is None
