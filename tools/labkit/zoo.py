"""The zoo, declared in one table: which devices the guest has, and what stands on them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .host import need, output

GUEST_ZOO = Path("/run/zoo")
GUEST_GADGETS = Path("/run/gadgets")
MIB = 1 << 20
TIB = 1 << 40
PIECE = 64 << 10  # small enough for the heap: new pages are slow in the native guest
Value = str | int  # of a property of QEMU's devices; bool is an int
GADGET = "gadget"  # the kind of those that the guest's own kernel makes
TARGET = "target"  # the kernel's SCSI target as a gadget (f_tcm): BOT in setting 0, UAS in setting 1
MADE_BY_GUEST = (GADGET, TARGET)
CONTROLLERS = ("xhci", "xhci-spare")  # the tests' zoo is on the first; one has 15 ports at most
HIGH_SPEED = "xhci-high"  # of its ports, only the first has SuperSpeed
PARTITION = MIB  # where the FAT stick's partition begins


@dataclass(frozen=True)
class Unit:
    """A logical unit; without blocks it has no medium."""

    blocks: int = 0
    block_size: int = 512
    type: str = "disk"  # or "cdrom"
    removable: bool = False
    read_only: bool = False
    sparse: bool = False  # random content around the start, the 2 TiB boundary and the end only
    fat: bool = False
    hollow: bool = False  # no content, nor room for it

    @property
    def size(self) -> int:
        """Bytes of the unit."""
        return self.blocks * self.block_size

    def regions(self) -> list[tuple[int, int]]:
        """Return offset and length, in bytes, of each region with random content."""
        if self.fat or self.hollow:
            return []
        if not self.sparse:
            return [(0, self.size)]
        reach = 4 * MIB
        return [(0, reach), (2 * TIB - reach, 2 * reach), (self.size - reach, reach)]


@dataclass(frozen=True)
class Device:
    """A device of the zoo: QEMU's, or a gadget of the guest's own kernel."""

    name: str
    kind: str  # QEMU's device model, or one of MADE_BY_GUEST
    units: tuple[Unit, ...]
    driver: str = "usb-storage"
    speed: int = 5000  # Mbit/s, as sysfs has it
    controller: str = CONTROLLERS[0]
    serial: str = field(default="", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "serial", f"LAB{self.name.upper().replace('-', '')}01")

    def file(self, lun: int) -> str:
        """Return the name of the unit's image file."""
        return f"{self.name}-{lun}.img"


ZOO = (
    Device("stick", "usb-storage", (Unit(blocks=131072 + 37),)),
    # Not usb-storage: before QEMU 8.2 that does not hand its block size on to the disk.
    Device("stick-4k", "usb-bot", (Unit(blocks=16384 + 5, block_size=4096),)),
    Device("empty", "usb-storage", (Unit(removable=True),)),
    Device(
        "multi",
        "usb-bot",
        (
            Unit(blocks=32768 + 3),
            Unit(blocks=3 * TIB // 512, sparse=True),
            Unit(type="cdrom", block_size=2048, removable=True),
        ),
    ),
    # Apart from the one above: QEMU answers REQUEST SENSE for any LUN but 0 with "logical unit not supported".
    Device("cdrom", "usb-bot", (Unit(type="cdrom", block_size=2048, removable=True),)),
    Device("uas", "usb-uas", (Unit(blocks=65536),), driver="uas"),
    Device("uas-high", "usb-uas", (Unit(blocks=8192),), driver="uas", speed=480, controller="xhci-high"),
    Device("fat", "usb-storage", (Unit(blocks=65536, removable=True, fat=True),)),
    Device("scratch", "usb-storage", (Unit(blocks=65536),)),
    Device("gadget-high", GADGET, (Unit(blocks=8192), Unit(blocks=4096 + 1, read_only=True)), speed=480),
    Device(
        "gadget-super",
        GADGET,
        (
            Unit(blocks=8192 + 1),
            Unit(blocks=2048, block_size=2048, type="cdrom", read_only=True),
            Unit(removable=True),
        ),
    ),
)


# For measuring: the same stick, and the same gadget, for each way to drive it, so that the ways can take turns
# without anybody opening or closing anything; a huge one; and many of one kind.
WAYS = ("kernel", "scsiusb", "c", "pyusb")
BENCH = (
    *(Device(f"stick-{way}", "usb-storage", (Unit(blocks=262144),)) for way in WAYS),
    *(Device(f"gadget-{way}", GADGET, (Unit(blocks=65536),)) for way in WAYS),
    Device("huge", "usb-storage", (Unit(blocks=10 * 1024 * MIB // 512, hollow=True),)),
    *(
        Device(f"many-{n}", "usb-storage", (Unit(blocks=524288, hollow=True),), controller=CONTROLLERS[n % 2])
        for n in range(16)
    ),
)
ZOOS: dict[str, tuple[Device, ...]] = {"tests": ZOO, "bench": BENCH, "target": ()}


def as_gadgets(devices: Sequence[Device]) -> tuple[Device, ...]:
    """Return the same devices as gadgets of the guest's own kernel, for a guest without QEMU; those speak no UAS."""
    return tuple(replace(device, kind=GADGET) for device in devices if device.driver != "uas")


NATIVE_ZOOS = {
    "tests": as_gadgets(ZOO),
    # Apart: by BOT, which the kernel's own driver uses, f_tcm of 6.12 delivers wrong bytes and frees commands twice.
    "target": (Device("target", TARGET, (Unit(blocks=65536),)),),
    "bench": as_gadgets([device for device in BENCH if device.kind == GADGET or device.name.startswith("many-")]),
}


def fill(folder: Path, devices: Sequence[Device]) -> None:
    """Make every backing file."""
    for device in devices:
        for lun, unit in enumerate(device.units):
            if unit.blocks:
                _fill(folder / device.file(lun), unit)


def describe(share: Path, devices: Sequence[Device]) -> None:
    """Write the description for the tests, and the calls by which the guest makes its gadgets."""
    controllers = _controllers(devices)
    (share / "zoo.json").write_text(json.dumps([_describe(device, controllers) for device in devices], indent=1))
    (share / "gadgets").write_text("".join(f"{line}\n" for line in _gadgets(devices)))


def qemu_options(folder: Path, devices: Sequence[Device]) -> list[str]:
    """Return QEMU's options for its controllers, devices and media."""
    controllers = [word for name in CONTROLLERS for word in ("-device", f"qemu-xhci,id={name},p2=15,p3=15")]
    controllers += ["-device", f"qemu-xhci,id={HIGH_SPEED},p2=2,p3=1"]
    return [*controllers, *(word for device in devices for word in _qemu(device, folder))]


def _controllers(devices: Sequence[Device]) -> dict[str, str]:
    """Name the controller of each gadget: dummy_hcd's are numbered."""
    gadgets = [device.name for device in devices if device.kind in MADE_BY_GUEST]
    return {name: f"dummy_udc.{number}" for number, name in enumerate(gadgets)}


def _fill(path: Path, unit: Unit) -> None:
    source = random.Random(path.name)
    with path.open("wb") as file:
        file.truncate(unit.size)
        for offset, length in unit.regions():
            file.seek(offset)
            for start in range(0, length, PIECE):
                file.write(source.randbytes(min(PIECE, length - start)))
    if unit.fat:
        _format(path, unit)


def _format(path: Path, unit: Unit) -> None:
    """Write a partition table with one FAT partition, as sticks are sold."""
    first = PARTITION // 512
    entry = bytes([0, 0xFE, 0xFF, 0xFF, 0x0E, 0xFE, 0xFF, 0xFF])
    entry += first.to_bytes(4, "little") + (unit.blocks - first).to_bytes(4, "little")
    with path.open("r+b") as file:
        file.seek(446)
        file.write(entry + bytes(48) + b"\x55\xaa")
    size = (unit.size - PARTITION) // 1024
    output([need("mkfs.vfat"), "-F", "16", "-n", "SCSIUSB", "-i", "5C510B00", f"--offset={first}", path, str(size)])


def _describe(device: Device, controllers: Mapping[str, str]) -> dict[str, Any]:
    units = [_describe_unit(device, lun, unit) for lun, unit in enumerate(device.units)]
    plain = ("name", "kind", "driver", "serial", "speed")
    made_of = {"qemu": _models(device), "udc": controllers.get(device.name, "")}
    return {**{key: getattr(device, key) for key in plain}, "units": units, **made_of}


def _describe_unit(device: Device, lun: int, unit: Unit) -> dict[str, Any]:
    folder = GUEST_GADGETS if device.kind in MADE_BY_GUEST else GUEST_ZOO
    plain = ("type", "block_size", "blocks", "removable", "read_only")
    return {
        "lun": lun,
        "path": str(folder / device.file(lun)) if unit.blocks else None,
        **{key: getattr(unit, key) for key in plain},
        "regions": unit.regions() if unit.blocks else [],
    }


def _qemu(device: Device, folder: Path) -> Iterator[str]:
    """Yield QEMU's options for a device and its media."""
    if device.kind in MADE_BY_GUEST:
        return
    for lun, unit in enumerate(device.units):
        node = f"{device.name}-{lun}"
        if unit.blocks:
            yield from (
                "-blockdev",
                f"driver=raw,node-name={node},file.driver=file,file.filename={folder / device.file(lun)}",
            )
        elif unit.type == "disk":
            yield from ("-drive", f"if=none,id={node}")
    for model in _models(device):
        yield from ("-device", ",".join(f"{name}={_option(value)}" for name, value in model.items()))


def _option(value: Value) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def _models(device: Device) -> list[dict[str, Value]]:
    """Return the properties of QEMU's device and of its disks, in the form that device_add also accepts."""
    if device.kind in MADE_BY_GUEST:
        return []
    bus = f"{device.controller}.0"
    usb: dict[str, Value] = {"driver": device.kind, "id": device.name, "bus": bus, "serial": device.serial}
    if device.controller == HIGH_SPEED:
        usb["port"] = "2"
    if device.kind == "usb-storage":
        return [{**usb, **_disk(device, 0), "removable": device.units[0].removable}]
    models = [usb]
    for lun in range(len(device.units)):
        model = "scsi-cd" if device.units[lun].type == "cdrom" else "scsi-hd"
        place: dict[str, Value] = {"bus": f"{device.name}.0", "scsi-id": 0, "lun": lun, "serial": device.serial}
        models.append({"driver": model, "id": f"{device.name}-lun{lun}", **place, **_disk(device, lun)})
    return models


def _disk(device: Device, lun: int) -> dict[str, Value]:
    unit = device.units[lun]
    if unit.type == "cdrom" and not unit.blocks:
        return {}
    disk: dict[str, Value] = {"drive": f"{device.name}-{lun}"}
    if unit.type == "disk" and unit.block_size != 512:
        disk |= {"logical_block_size": unit.block_size, "physical_block_size": unit.block_size}
    return disk


def _gadgets(devices: Sequence[Device]) -> Iterator[str]:
    """Yield the shell calls by which the guest makes its gadgets: see common.sh."""
    controllers = _controllers(devices)
    for device in devices:
        if device.name not in controllers:
            continue
        speed = "high-speed" if device.speed == 480 else "super-speed"
        function = "tcm.0" if device.kind == TARGET else "mass_storage.0"
        yield f"gadget {device.name} {speed} {device.serial} {function}"
        if device.kind == TARGET:
            yield f"target_lun {device.name} {device.file(0)} {device.units[0].size}"
        else:
            yield from _gadget_luns(device)
        yield f"gadget_plug {device.name} {controllers[device.name]}"


def _gadget_luns(device: Device) -> Iterator[str]:
    for lun, unit in enumerate(device.units):
        file = device.file(lun) if unit.blocks else "-"
        facts = (unit.type == "cdrom", unit.read_only, unit.removable, unit.block_size)
        yield f"gadget_lun {device.name} {lun} {file} {' '.join(str(int(fact)) for fact in facts)}"
