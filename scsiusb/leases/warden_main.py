"""The warden's program: outlives the process that started it, and gives back what that held if it died without a word.

Run by `python -I -S`, as a script or compiled, with PID STARTED SYSFS DEV and a socket to that process as its standard
input, and imported for `give_back`. It must be up in no time, so it imports next to nothing, and nothing of scsiusb.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any, Final
else:
    import _signal  # signal loads enum, which takes longer than all the rest
if sys.platform != "win32":
    import fcntl

IN_COMMAND: Final = len('{"in_command": ')  # where a lease tells by one digit whether a command is under way
LOCK_PATIENCE: Final = 1.0  # seconds; a dying process lets go of things a little late
CLAIM_PATIENCE: Final = 1.5
BIND_PATIENCE: Final = 0.5
PAUSE: Final = 0.01
REQUEST_TIMEOUT_MS: Final = 1000
MOST_HOLDINGS: Final = 256
LONGEST_MESSAGE: Final = 4096
LONGEST_LEASE: Final = 65536
MASS_STORAGE: Final = "08"  # bInterfaceClass, as sysfs prints it
CLASS_RESET: Final = (0x21, 0xFF)  # bmRequestType, bRequest: Bulk-Only Mass Storage Reset (BOT 3.1)
GONE: Final = "the device is gone"
DEAD: Final = -1  # the start time of a process that has ended but was not waited for yet

# _IOC_NONE, _IOC_READ, _IOC_WRITE, _IOC_DIRSHIFT (asm/ioctl.h), by the beginning of the machine's name
IOC: Final = (0, 2, 1, 30)
ODD_IOC: Final = {**dict.fromkeys(("ppc", "mips", "sparc", "alpha"), (1, 2, 4, 29)), "parisc": (0, 1, 2, 30)}
CONTROL: Final = "BBHHHIP"  # struct usbdevfs_ctrltransfer
IOCTL: Final = "iiP"  # struct usbdevfs_ioctl


class Holding:
    """An interface that a process holds; `lease` is the path of its file, where it has one."""

    def __init__(
        self, name: str, bus: int, number: int, interface: int, bulk_in: int, bulk_out: int, had_driver: bool
    ) -> None:
        self.name = name
        self.bus = bus
        self.number = number
        self.interface = interface
        self.bulk_in = bulk_in
        self.bulk_out = bulk_out
        self.had_driver = had_driver
        self.in_command = True  # as long as nobody tells otherwise
        self.lease: bytes | None = None

    @property
    def key(self) -> str:
        return f"{self.bus}/{self.number}/{self.interface}"

    def message(self) -> bytes:
        numbers = (self.bus, self.number, self.interface, self.bulk_in, self.bulk_out, int(self.had_driver))
        lease = self.lease.hex() if self.lease else "-"
        return f"hold {self.name} {' '.join(map(str, numbers))} {lease}".encode()


def from_words(words: list[str]) -> Holding:
    bus, number, interface, bulk_in, bulk_out, had_driver = map(int, words[1:7])
    holding = Holding(words[0], bus, number, interface, bulk_in, bulk_out, bool(had_driver))
    holding.lease = bytes.fromhex(words[7]) if words[7] != "-" else None
    return holding


class Kernel:
    """Linux's sysfs and usbfs; tests put others in their place."""

    def __init__(
        self, sysfs: str = "/sys", dev: str = "/dev", ioctl: Callable[[int, int, Any], Any] | None = None
    ) -> None:
        self.usb = f"{sysfs}/bus/usb"
        self.dev = dev
        self._ioctl = ioctl or fcntl.ioctl
        machine = os.uname().machine
        layouts = [layout for name, layout in ODD_IOC.items() if machine.startswith(name)]
        self._none, self._read, self._write, self._shift = layouts[0] if layouts else IOC

    def attribute(self, name: str, attribute: str) -> str:
        try:
            with open(f"{self.usb}/devices/{name}/{attribute}", "rb") as file:
                return file.read(256).decode("ascii", "replace").strip()
        except OSError:
            return ""

    def has(self, holding: Holding) -> bool:
        """Whether the interface is there, on the very device that was held."""
        device = holding.name.partition(":")[0]
        there = [self.attribute(device, attribute) for attribute in ("busnum", "devnum")]
        number = self.attribute(holding.name, "bInterfaceNumber")
        return there == [str(holding.bus), str(holding.number)] and number == f"{holding.interface:02x}"

    def driver(self, holding: Holding) -> str:
        try:
            return os.path.basename(os.readlink(f"{self.usb}/devices/{holding.name}/driver"))
        except OSError:
            return ""

    def open(self, holding: Holding) -> int:
        return os.open(f"{self.dev}/bus/usb/{holding.bus:03}/{holding.number:03}", os.O_RDWR | os.O_CLOEXEC)

    def claim(self, node: int, interface: int) -> None:
        self._with_number(node, 15, interface)  # USBDEVFS_CLAIMINTERFACE

    def release(self, node: int, interface: int) -> None:
        self._with_number(node, 16, interface)  # USBDEVFS_RELEASEINTERFACE

    def clear_halt(self, node: int, endpoint: int) -> None:
        self._with_number(node, 21, endpoint)  # USBDEVFS_CLEAR_HALT

    def class_reset(self, node: int, interface: int) -> None:
        request = struct.pack(CONTROL, *CLASS_RESET, 0, interface, 0, REQUEST_TIMEOUT_MS, 0)
        code = self._code(self._read | self._write, 0, struct.calcsize(CONTROL))  # USBDEVFS_CONTROL
        self._ioctl(node, code, request)

    def reset(self, node: int) -> None:
        self._ioctl(node, self._code(self._none, 20), 0)  # USBDEVFS_RESET

    def connect(self, node: int, interface: int) -> None:
        inner = self._code(self._none, 23)  # USBDEVFS_CONNECT
        outer = self._code(self._read | self._write, 18, struct.calcsize(IOCTL))  # USBDEVFS_IOCTL
        self._ioctl(node, outer, struct.pack(IOCTL, interface, inner, 0))

    def probe(self, holding: Holding) -> None:
        with open(f"{self.usb}/drivers_probe", "wb", buffering=0) as file:
            file.write(holding.name.encode())

    def _with_number(self, node: int, number: int, value: int) -> None:
        self._ioctl(node, self._code(self._read, number, struct.calcsize("I")), struct.pack("I", value))

    def _code(self, direction: int, number: int, size: int = 0) -> int:
        return direction << self._shift | size << 16 | ord("U") << 8 | number


def give_back(kernel: Kernel, holding: Holding) -> tuple[bool, str]:
    """Recovers the transport and has the kernel's driver bound again: whether all is right now, and what was done."""
    try:
        node, state = _claim(kernel, holding)
        if node is None:
            return state != "usbfs", _said(state)
        try:
            _recover(kernel, node, holding)
            return _bind(kernel, node, holding)
        finally:
            os.close(node)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ESHUTDOWN) or not kernel.has(holding):
            return True, GONE
        return False, (error.strerror or str(error)).lower()


def _said(state: str) -> str:
    if not state:
        return GONE
    if state == "usbfs":
        return "another program uses it by now"
    return f"the kernel's driver {state} has it"


def _claim(kernel: Kernel, holding: Holding) -> tuple[int | None, str]:
    """The device's node, with the interface claimed; or none, and the driver that has it, "" if it is not there."""
    deadline = time.monotonic() + CLAIM_PATIENCE
    while True:
        if not kernel.has(holding) or kernel.attribute(holding.name, "bInterfaceClass") != MASS_STORAGE:
            return None, ""
        driver = kernel.driver(holding)
        if driver not in ("", "usbfs"):
            return None, driver
        node = None if driver else _try_claim(kernel, holding)
        if node is not None:
            return node, ""
        if time.monotonic() > deadline:
            return None, "usbfs"
        time.sleep(PAUSE)


def _try_claim(kernel: Kernel, holding: Holding) -> int | None:
    node = kernel.open(holding)
    try:
        kernel.claim(node, holding.interface)
    except OSError as error:
        os.close(node)
        if error.errno == errno.EBUSY:
            return None
        raise
    return node


def _recover(kernel: Kernel, node: int, holding: Holding) -> None:
    """Reset recovery (BOT 5.3.4) and, where it failed or a command was cut off, a reset of the port.

    The interface is released before the latter, as usbfs would lose it by that, and the kernel bind its driver.
    """
    steps: list[tuple[Callable[[int, int], None], int]] = [(kernel.class_reset, holding.interface)]
    steps += [(kernel.clear_halt, endpoint) for endpoint in (holding.bulk_in, holding.bulk_out)]
    worked = [_works(step, node, argument) for step, argument in steps]
    kernel.release(node, holding.interface)
    if holding.in_command or not all(worked):
        _works(kernel.reset, node)  # if not, the kernel's driver does it once more when it finds the device so


def _works(step: Callable[..., None], *arguments: Any) -> bool:
    try:
        step(*arguments)
    except OSError:
        return False
    return True


def _bind(kernel: Kernel, node: int, holding: Holding) -> tuple[bool, str]:
    if not holding.had_driver:
        return True, "recovered; it had no kernel driver before"
    _works(kernel.connect, node, holding.interface)
    if not kernel.driver(holding):
        _works(kernel.probe, holding)
    deadline = time.monotonic() + BIND_PATIENCE
    while kernel.has(holding):
        driver = kernel.driver(holding)
        if driver not in ("", "usbfs"):
            return True, f"kernel driver {driver} is bound again"
        if time.monotonic() > deadline:
            return False, "no kernel driver takes it"
        time.sleep(PAUSE)
    return True, GONE


# --- leases and processes -----------------------------------------------------------------------


def started(pid: int) -> int | None:
    """When the process was started, in the kernel's ticks (proc(5), stat, field 22); DEAD; None: it does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return None
    return DEAD if fields[0] in (b"Z", b"X") else int(fields[19])


def lock_for_recovery(descriptor: int) -> bool:
    """Locks a dead process's lease. False: somebody else is at it.

    It goes on without the lock where no living process took it: a fork's child may keep it, and readers can share it.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return not locked_by_the_living(descriptor)
            time.sleep(PAUSE)


def locked_by_the_living(descriptor: int) -> bool:
    """Whether a process that runs, and is to be trusted, took an exclusive lock on the file (proc(5), locks).

    True if it cannot be told.
    """
    inode = str(os.fstat(descriptor).st_ino).encode()
    try:
        with open("/proc/locks", "rb") as file:
            lines = [line.split() for line in file]
    except OSError:
        return True
    # 1: FLOCK ADVISORY WRITE 1234 00:19:5678 0 EOF
    writers = [int(line[4]) for line in lines if line[1] == b"FLOCK" and line[3] == b"WRITE" and _inode(line) == inode]
    return any(_may_recover(pid, descriptor) for pid in writers)


def _inode(line: list[bytes]) -> bytes:
    return line[5].rpartition(b":")[2]


def _may_recover(pid: int, descriptor: int) -> bool:
    """Not just anybody who may read root's leases."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return False
    return owner in (0, os.geteuid(), os.fstat(descriptor).st_uid) and started(pid) not in (None, DEAD)


def settle(kernel: Kernel, holding: Holding, pid: int) -> None:
    """Gives back what the dead process `pid` held, unless somebody is at it, and removes its lease if all is right."""
    if holding.lease is None:
        give_back(kernel, holding)
        return
    try:
        lease = os.open(holding.lease, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if holding.had_driver:  # it was given back, or somebody swept the folder
            give_back(kernel, holding)
        return
    if not lock_for_recovery(lease):
        return
    text = os.pread(lease, LONGEST_LEASE, 0).partition(b"\n")[0]
    if not text.startswith(b', "pid": %d,' % pid, IN_COMMAND + 1):
        return  # another process's lease by now
    holding.in_command = text[IN_COMMAND : IN_COMMAND + 1] != b"0"
    holding.had_driver = b'"driver": null' not in text
    right, _ = give_back(kernel, holding)
    if right and os.path.samestat(os.fstat(lease), os.lstat(holding.lease)):
        os.unlink(holding.lease)


# --- the process --------------------------------------------------------------------------------


def listen(pid: int, since: str) -> list[Holding]:
    """Reads what the process holds until it says good-bye, or dies: what it held then."""
    holdings: dict[str, Holding] = {}
    os.set_blocking(0, False)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    alive = _watch(poll, pid, since)
    while True:
        # A fork's child may keep the socket open: once the process is dead, only what it had said counts.
        alive = alive and all(descriptor == 0 for descriptor, _ in poll.poll())
        try:
            message = os.read(0, LONGEST_MESSAGE)
        except BlockingIOError:
            if not alive:
                return list(holdings.values())
            continue
        except OSError:  # a reset connection
            message = b""
        if not message:
            return list(holdings.values())
        if message == b"bye":
            return []
        _note(holdings, message.decode().split(" "))


def _watch(poll: select.poll, pid: int, since: str) -> bool:
    """Has `poll` tell of the process's death, where the kernel can; False: it is dead already."""
    if not hasattr(os, "pidfd_open"):
        return True
    try:
        poll.register(os.pidfd_open(pid), select.POLLIN)
    except ProcessLookupError:
        return False
    except OSError:  # an old kernel
        return True
    return since == "-" or started(pid) == int(since)


def _note(holdings: dict[str, Holding], words: list[str]) -> None:
    if words[0] == "hold" and len(holdings) < MOST_HOLDINGS:
        holding = from_words(words[1:])
        holdings[holding.key] = holding
    elif words[0] == "drop":
        holdings.pop(words[1], None)


def main(arguments: list[str]) -> None:
    """Each device is given back by a process of its own, so that a slow one holds up no other."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    os.closerange(3, 65536)
    pid, since, sysfs, dev = arguments
    children = []
    for holding in listen(int(pid), since):
        child = os.fork()
        if not child:
            try:
                settle(Kernel(sysfs, dev), holding, int(pid))
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[-4:])
