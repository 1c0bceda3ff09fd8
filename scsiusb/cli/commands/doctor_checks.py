"""The checks of `doctor`: each is a generator of rows; an exception in a check becomes a row."""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Final, NamedTuple

from scsiusb._version import __version__
from scsiusb.base.dataclass import dataclass
from scsiusb.base.text import printable
from scsiusb.cli.failure import failure_of, wrong_quirks
from scsiusb.cli.output import counted
from scsiusb.leases import folders, lease
from scsiusb.leases.record import process_of
from scsiusb.quirks import user as quirks_user
from scsiusb.usb import diagnosis
from scsiusb.usb.backend import Backend, Code
from scsiusb.usb.diagnosis import Sandbox
from scsiusb.usb.interface import InterfaceInfo, find
from scsiusb.usb.libusb.memory import LIMIT
from scsiusb.usb.system import linux, udev

SMALLEST_MEMORY: Final = 16  # MB: the kernel's default, enough for a few transfers of 1 MiB
INSTALL_RULE: Final = (
    f"scsiusb doctor --rule | sudo tee /etc/udev/rules.d/{udev.NAME} && "
    "sudo udevadm control --reload && sudo udevadm trigger"
)
ATTACH_TO_WSL: Final = "on Windows: `usbipd bind --busid ID`, then `usbipd attach --wsl --busid ID`"
GIVE_TO_CONTAINER: Final = (
    "start the container with -v /dev/bus/usb:/dev/bus/usb --device-cgroup-rule='c 189:* rmw' (or --privileged)"
)
LOAD_USB: Final = "load the host controller's driver: sudo modprobe xhci_pci"
AGAIN_AT_THE_SEAT: Final = (
    "plug the device in again, or run `sudo udevadm trigger`; the rule is for the local user only, others need sudo"
)
INSTALL_LIBUSB: Final = "install it again: pip install --force-reinstall libusb-package pyusb"
NOT_WINUSB: Final = (Code.NOT_SUPPORTED, Code.NOT_FOUND)


class Check(NamedTuple):
    """A row of the report. `remedy` is what to do, or a hint if the row is ok; None if there is nothing to do."""

    check: str
    ok: bool
    detail: str
    remedy: str | None = None


@dataclass(frozen=True)
class Machine:
    """The machine to check; tests use another one."""

    backend: Callable[[], Backend]
    platform: str = sys.platform
    is_root: bool = field(default_factory=folders.is_root)


Look = Callable[[Machine], Iterator[Check]]


def examine(machine: Machine) -> Iterator[Check]:
    """Run all checks for the platform and yield their rows."""
    for name, look in _looks(machine.platform):
        yield from _guarded(name, look(machine))


def _looks(system: str) -> Iterator[tuple[str, Look]]:
    yield "runtime", _runtime
    yield "libusb", _library
    yield from SYSTEMS.get(system, ())
    yield "lease folder", _lease_folder
    yield "leases", _leases
    yield "quirks", _quirks
    yield "devices", _devices


def _guarded(name: str, rows: Iterator[Check]) -> Iterator[Check]:
    try:
        yield from rows
    except Exception as error:  # noqa: BLE001 - the other checks must run even if one fails
        failure = failure_of(error)
        yield Check(name, False, printable(failure.what), failure.remedy or None)


def _runtime(machine: Machine) -> Iterator[Check]:
    system = " ".join(filter(None, (platform.system(), platform.release(), platform.machine())))
    where = diagnosis.sandbox() if machine.platform == "linux" else None
    inside = f", in {where.value}" if where else ""
    yield Check("runtime", True, f"scsiusb {__version__}, Python {platform.python_version()}, {system}{inside}")


def _library(machine: Machine) -> Iterator[Check]:
    try:
        library = diagnosis.library()
    except Exception as error:  # noqa: BLE001 - a library can fail to load in many ways
        yield Check("libusb", False, printable(failure_of(error).what), INSTALL_LIBUSB)
        return
    yield Check("libusb", True, f"{library.version}, {library.path}")
    how = "libusb reports hotplug events" if library.has_hotplug else "polling: this libusb has no hotplug events"
    yield Check("hotplug", True, how)


# --- Linux --------------------------------------------------------------------------------------


def _usb_of_linux(machine: Machine) -> Iterator[Check]:
    missing = diagnosis.missing_folders()
    if not missing:
        yield Check("usb", True, f"{linux.USB_DEVICES} and {diagnosis.NODES} exist")
        return
    remedies = {Sandbox.WSL: ATTACH_TO_WSL, Sandbox.CONTAINER: GIVE_TO_CONTAINER, None: LOAD_USB}
    which = " and ".join(map(str, missing))
    yield Check("usb", False, f"missing: {which}; no USB device can be used", remedies[diagnosis.sandbox()])


def _udev_rule(machine: Machine) -> Iterator[Check]:
    state, path = udev.state(), udev.installed()
    detail = f"{path}: {state.value}" if path else f"{udev.NAME} is {state.value}"
    if state is udev.State.CURRENT:
        yield Check("udev rule", True, detail)
    elif machine.is_root:
        yield Check("udev rule", True, f"{detail}; root does not need it")
    else:
        yield Check("udev rule", False, detail, INSTALL_RULE)


def _usbfs_memory(machine: Machine) -> Iterator[Check]:
    limit = diagnosis.memory_limit()
    if limit is None:
        return  # no usbcore; the row "usb" reports it
    if limit == 0 or limit >= SMALLEST_MEMORY:
        detail = f"{limit} MB for the transfers of all programs" if limit else "no limit"
        yield Check("usbfs memory", True, detail)
        return
    remedy = f"echo {SMALLEST_MEMORY} | sudo tee {LIMIT}"
    yield Check("usbfs memory", False, f"only {limit} MB for the transfers of all programs", remedy)


# --- macOS --------------------------------------------------------------------------------------


def _capture(machine: Machine) -> Iterator[Check]:
    if machine.is_root:
        unmount = "unmount a disk before you use it: diskutil unmountDisk diskN"
        yield Check("capture", True, "root can detach a device from the system", unmount)
    else:
        detail = "only root, or a program with Apple's entitlement, can detach a disk from the system"
        yield Check("capture", False, detail, "run scsiusb with sudo, after `diskutil unmountDisk diskN`")


SYSTEMS: Final[dict[str, tuple[tuple[str, Look], ...]]] = {
    "linux": (("usb", _usb_of_linux), ("udev rule", _udev_rule), ("usbfs memory", _usbfs_memory)),
    "darwin": (("capture", _capture),),
}


# --- leases -------------------------------------------------------------------------------------


def _lease_folder(machine: Machine) -> Iterator[Check]:
    """Check that leases can be stored; without them, no process can see who uses a device, or recover an orphan."""
    refused = []
    for path in folders.own():
        try:
            folders.make(path).close()
        except OSError as error:
            refused.append(failure_of(error).what)
            continue
        if os.access(path, os.W_OK):
            yield Check("lease folder", True, str(path))
            return
        refused.append(f"{path} is not writable")
    detail = printable("; ".join(refused)) or "no runtime folder and no folder for temporary files"
    yield Check(
        "lease folder", False, detail, "set XDG_RUNTIME_DIR (on macOS and Windows TMPDIR) to a folder that you own"
    )


def _leases(machine: Machine) -> Iterator[Check]:
    seen = lease.leases()
    for each in seen:
        if each.state == "orphaned":
            record = each.record
            who = f"{process_of(record)} ended without giving {record.address} back"
            yield Check(f"orphan {record.address}", False, who, f"scsiusb recover {record.address}")
    live = sum(each.state == "live" for each in seen)
    yield Check("leases", True, f"{counted(live, 'device')} in use by scsiusb processes")


# --- quirks of the user -------------------------------------------------------------------------


def _quirks(machine: Machine) -> Iterator[Check]:
    try:
        quirks_user.row_for(-1, -1)  # no device has these IDs, so all rows are parsed
    except ValueError as error:
        refused = wrong_quirks(error)
        yield Check("quirks", False, printable(refused.what), refused.remedy)
        return
    count = len(quirks_user.parse_rows(os.environ.get(quirks_user.VARIABLE, ""), quirks_user.VARIABLE))
    path = quirks_user.path()
    state = "is valid" if os.path.exists(path) else "does not exist"
    yield Check("quirks", True, printable(f"{counted(count, 'row')} in {quirks_user.VARIABLE}; {path} {state}"))


# --- each device --------------------------------------------------------------------------------


def _devices(machine: Machine) -> Iterator[Check]:
    backend = machine.backend()
    try:
        found = find(backend)
        detail = ", ".join(map(str, found)) or "no mass-storage device is attached"
        hint = ATTACH_TO_WSL if not found and _is_wsl(machine) else None
        yield Check("devices", True, detail, hint)
        for info in found:
            for name, look in DEVICE_LOOKS:
                yield from _guarded(f"{name} {info.address}", look(machine, backend, info))
    finally:
        backend.close()


def _is_wsl(machine: Machine) -> bool:
    return machine.platform == "linux" and diagnosis.sandbox() is Sandbox.WSL


def _permission(machine: Machine, backend: Backend, info: InterfaceInfo) -> Iterator[Check]:
    name = f"permission {info.address}"
    if machine.platform == "win32":
        yield _winusb(name, backend, info)
    elif machine.platform == "linux":
        try:
            diagnosis.try_node(info.device)
        except OSError as error:
            yield Check(name, False, failure_of(error).what, _node_remedy(machine, error))
        else:
            yield Check(name, True, f"{linux.node(info.device)} is accessible")


def _node_remedy(machine: Machine, error: OSError) -> str | None:
    if isinstance(error, PermissionError) and not machine.is_root:
        return INSTALL_RULE if udev.state() is udev.State.MISSING else AGAIN_AT_THE_SEAT
    if isinstance(error, PermissionError) or error.errno == errno.ENOENT:
        return GIVE_TO_CONTAINER
    return failure_of(error).remedy


def _winusb(name: str, backend: Backend, info: InterfaceInfo) -> Check:
    error = diagnosis.try_open(backend, info.device)
    if error is None:
        return Check(name, True, "the driver is WinUSB")
    if error.code in NOT_WINUSB:
        zadig = "choose WinUSB for the device with Zadig (https://zadig.akeo.ie); it has no drive letter then"
        return Check(name, False, f"the driver of {info} is not WinUSB", zadig)
    return Check(name, False, f"{info} cannot be opened: {error.code.name}", "close the program that uses it")


def _driver(machine: Machine, backend: Backend, info: InterfaceInfo) -> Iterator[Check]:
    """Check that a driver or a program uses the interface; otherwise the system cannot see the disk."""
    name = f"driver {info.address}"
    if machine.platform != "linux" or not linux.USB_DEVICES.is_dir():
        return
    if info.driver not in (None, diagnosis.USBFS_DRIVER):
        yield Check(name, True, f"in use by the kernel driver {info.driver}")
        return
    users = _users(info)
    if info.driver is not None or users:
        yield Check(name, True, f"in use by {' and '.join(users) or 'another program'}")
    else:
        remedy = f"scsiusb recover {info.address}; if no driver accepts it, first run: sudo modprobe -a usb-storage uas"
        yield Check(name, False, "no driver and no program uses it: the system cannot see the disk", remedy)


def _users(info: InterfaceInfo) -> list[str]:
    holder = lease.holder(info)
    if holder is not None:
        return [process_of(holder)]
    return [printable(who) for who in linux.openers(info.device)]


def _uses(machine: Machine, backend: Backend, info: InterfaceInfo) -> Iterator[Check]:
    """List what uses the disk, such as mounts. This is not a problem, but scsiusb cannot open it."""
    uses = [printable(use) for use in backend.uses(info.device, info.interface)]
    if uses:
        yield Check(f"uses {info.address}", True, ", ".join(uses), "unmount it before you use it with scsiusb")


def _protocol(machine: Machine, backend: Backend, info: InterfaceInfo) -> Iterator[Check]:
    """Say what cannot be used, or has no second protocol. This is not a problem of the machine."""
    name = f"protocol {info.address}"
    if info.unsupported is not None:
        yield Check(name, True, f"scsiusb can list it, but not use it: {info.unsupported}")
    elif info.protocol == "uas":
        yield Check(name, True, "it supports only UAS: where that fails, BOT cannot take its place")


DEVICE_LOOKS: Final[tuple[tuple[str, Callable[[Machine, Backend, InterfaceInfo], Iterator[Check]]], ...]] = (
    ("protocol", _protocol),
    ("permission", _permission),
    ("driver", _driver),
    ("uses", _uses),
)
