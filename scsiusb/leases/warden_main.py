"""The warden's program: gives devices back to the kernel when the process that held them has died.

It runs as `python -I -S` with the arguments PID STARTED SYSFS DEV and a socket to that process as its standard input.
The library also imports this module, for `give_back`. A process that opens its first device waits until the warden
is executed, so this module must load fast: it imports only small modules of the standard library and none of scsiusb.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
import time

TYPE_CHECKING = False  # type checkers take it as True; importing `typing` takes longer than all other imports together
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any, Final
else:
    import _signal  # `signal` would import `enum`, which is as slow as `typing`
if sys.platform == "win32":
    fcntl = None  # the library imports this module there, too, but runs nothing of it
else:
    import fcntl

# Offset, in bytes, of the digit in a lease that says whether a command is in progress: "0" no, "1" yes.
IN_COMMAND: Final = len('{"in_command": ')
# Seconds. The kernel closes the files of a killed process some time after the process counts as dead: its lock and
# its claim can outlast it.
LOCK_TIMEOUT: Final = 1.0
CLAIM_TIMEOUT: Final = 1.5
BIND_TIMEOUT: Final = 0.5  # seconds, for the kernel to bind a driver
POLL_INTERVAL: Final = 0.01  # seconds
CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
LINUX_ONLY: Final = "only Linux has drivers to give devices back to"
REQUEST_TIMEOUT_MS: Final = 1000
MAX_HOLDINGS: Final = 256
MAX_MESSAGE_SIZE: Final = 4096  # bytes
MAX_LEASE_SIZE: Final = 65536  # bytes
MASS_STORAGE: Final = "08"  # bInterfaceClass, as sysfs prints it
CLASS_RESET: Final = (0x21, 0xFF)  # bmRequestType, bRequest: Bulk-Only Mass Storage Reset (BOT 3.1)
GONE: Final = "the device is gone"
DEAD: Final = -1  # `started` of a zombie: a process that has ended but was not waited for

# _IOC_NONE, _IOC_READ, _IOC_WRITE, _IOC_DIRSHIFT (asm/ioctl.h). A few architectures differ from the generic layout;
# they are found by the start of uname's machine name.
IOC: Final = (0, 2, 1, 30)
OTHER_IOC: Final = {**dict.fromkeys(("ppc", "mips", "sparc", "alpha"), (1, 2, 4, 29)), "parisc": (0, 1, 2, 30)}
CONTROL: Final = "BBHHHIP"  # struct usbdevfs_ctrltransfer
IOCTL: Final = "iiP"  # struct usbdevfs_ioctl


class Holding:
    """An interface that a process holds, as far as the warden must know it.

    `bulk_in` and `bulk_out` are bEndpointAddress values. `lease` is the path of the lease's file, None if there is
    no such file.
    """

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
        self.in_command = True  # the safe assumption until the lease is read: it only costs a port reset
        self.lease: bytes | None = None

    @property
    def key(self) -> str:
        """Return what identifies the interface of one plugging-in: "BUS/NUMBER/INTERFACE"."""
        return f"{self.bus}/{self.number}/{self.interface}"

    def message(self) -> bytes:
        """Return the "hold" message for the warden; `from_words` reads it."""
        # The path is sent in hex, so that a space or a newline in it cannot split the message.
        numbers = (self.bus, self.number, self.interface, self.bulk_in, self.bulk_out, int(self.had_driver))
        lease = self.lease.hex() if self.lease else "-"
        return f"hold {self.name} {' '.join(map(str, numbers))} {lease}".encode()


def from_words(words: list[str]) -> Holding:
    """Return the holding that a "hold" message describes; `words` are those after "hold"."""
    bus, number, interface, bulk_in, bulk_out, had_driver = map(int, words[1:7])
    holding = Holding(words[0], bus, number, interface, bulk_in, bulk_out, bool(had_driver))
    holding.lease = bytes.fromhex(words[7]) if words[7] != "-" else None
    return holding


class Kernel:
    """Linux's sysfs and usbfs: what recovery reads from them and asks of them (linux/usbdevice_fs.h).

    Methods that take `node`, a descriptor of the device's node, raise OSError if the kernel refuses the request.
    Tests pass other folders and another `ioctl`.
    """

    def __init__(
        self, sysfs: str = "/sys", dev: str = "/dev", ioctl: Callable[[int, int, Any], Any] | None = None
    ) -> None:
        self.usb = f"{sysfs}/bus/usb"
        self.dev = dev
        self._ioctl = ioctl or _ioctl
        machine = _machine()
        layouts = [layout for name, layout in OTHER_IOC.items() if machine.startswith(name)]
        self._none, self._read, self._write, self._shift = layouts[0] if layouts else IOC

    def attribute(self, name: str, attribute: str) -> str:
        """Read a sysfs attribute of the device or interface `name`; "" if it cannot be read."""
        try:
            with open(f"{self.usb}/devices/{name}/{attribute}", "rb") as file:
                return file.read(256).decode("ascii", "replace").strip()
        except OSError:
            return ""

    def has(self, holding: Holding) -> bool:
        """Return whether the interface is still there, on the same plugging-in of the device."""
        # The kernel counts devnum up with each plugging-in: another device in the same port has another number.
        device = holding.name.partition(":")[0]
        there = [self.attribute(device, attribute) for attribute in ("busnum", "devnum")]
        number = self.attribute(holding.name, "bInterfaceNumber")
        return there == [str(holding.bus), str(holding.number)] and number == f"{holding.interface:02x}"

    def driver(self, holding: Holding) -> str:
        """Return the kernel driver that is bound to the interface: "usbfs" if a program claims it, "" if none."""
        try:
            return os.path.basename(os.readlink(f"{self.usb}/devices/{holding.name}/driver"))
        except OSError:
            return ""

    def open(self, holding: Holding) -> int:
        """Open the device's node and return the descriptor. Raises OSError."""
        return os.open(f"{self.dev}/bus/usb/{holding.bus:03}/{holding.number:03}", os.O_RDWR | CLOEXEC)

    def claim(self, node: int, interface: int) -> None:
        """Claim the interface. Raises OSError with EBUSY if a driver or another program has it."""
        self._ioctl_number(node, 15, interface)  # USBDEVFS_CLAIMINTERFACE

    def release(self, node: int, interface: int) -> None:
        """Release the claimed interface."""
        self._ioctl_number(node, 16, interface)  # USBDEVFS_RELEASEINTERFACE

    def clear_halt(self, node: int, endpoint: int) -> None:
        """Send CLEAR_FEATURE(ENDPOINT_HALT) and reset the endpoint's data toggle."""
        self._ioctl_number(node, 21, endpoint)  # USBDEVFS_CLEAR_HALT

    def class_reset(self, node: int, interface: int) -> None:
        """Send Bulk-Only Mass Storage Reset (BOT 3.1)."""
        request = struct.pack(CONTROL, *CLASS_RESET, 0, interface, 0, REQUEST_TIMEOUT_MS, 0)
        code = self._code(self._read | self._write, 0, struct.calcsize(CONTROL))  # USBDEVFS_CONTROL
        self._ioctl(node, code, request)

    def reset(self, node: int) -> None:
        """Reset the device's port."""
        self._ioctl(node, self._code(self._none, 20), 0)  # USBDEVFS_RESET

    def connect(self, node: int, interface: int) -> None:
        """Have the kernel look for a driver; any process that may open the device may do this."""
        inner = self._code(self._none, 23)  # USBDEVFS_CONNECT
        outer = self._code(self._read | self._write, 18, struct.calcsize(IOCTL))  # USBDEVFS_IOCTL
        self._ioctl(node, outer, struct.pack(IOCTL, interface, inner, 0))

    def probe(self, holding: Holding) -> None:
        """Have the kernel look for a driver, through sysfs: needs root. Raises OSError."""
        with open(f"{self.usb}/drivers_probe", "wb", buffering=0) as file:
            file.write(holding.name.encode())

    def _ioctl_number(self, node: int, number: int, value: int) -> None:
        """Call an ioctl that takes a pointer to an unsigned int."""
        self._ioctl(node, self._code(self._read, number, struct.calcsize("I")), struct.pack("I", value))

    def _code(self, direction: int, number: int, size: int = 0) -> int:
        """Return _IOC(direction, 'U', number, size); computed, as direction and size differ between machines."""
        return direction << self._shift | size << 16 | ord("U") << 8 | number


def _ioctl(node: int, code: int, argument: Any) -> Any:
    """Call ioctl(2). Raises OSError."""
    if sys.platform == "win32":
        raise OSError(LINUX_ONLY)
    return fcntl.ioctl(node, code, argument)


def _machine() -> str:
    """Return uname's name of the processor architecture."""
    if sys.platform == "win32":
        return ""
    return os.uname().machine


def give_back(kernel: Kernel, holding: Holding) -> tuple[bool, str]:
    """Recover the transport and have the kernel bind its driver again.

    Returns whether the interface needs nothing more, and what was done or what went wrong, in words. An interface
    that is gone, or that has a kernel driver, needs nothing. Raises no OSError.
    """
    try:
        node, state = _claim(kernel, holding)
        if node is None:
            # Another program's claim may end without a driver: then the lease must still be there.
            return state != "usbfs", _not_claimed(state)
        try:
            _recover(kernel, node, holding)
            return _bind(kernel, node, holding)
        finally:
            os.close(node)
    except OSError as error:
        # Which errno an unplug gives depends on the step: look at sysfs before reporting a failure.
        if error.errno in (errno.ENODEV, errno.ESHUTDOWN) or not kernel.has(holding):
            return True, GONE
        return False, (error.strerror or str(error)).lower()


def _not_claimed(state: str) -> str:
    """Describe why `_claim` did not claim the interface."""
    if not state:
        return GONE
    if state == "usbfs":
        return "another program uses it"
    return f"kernel driver {state} is already bound"


def _claim(kernel: Kernel, holding: Holding) -> tuple[int | None, str]:
    """Claim the interface and return the device's node.

    If that is not possible, returns None and the driver that has the interface; "" if the interface is not there.
    """
    deadline = time.monotonic() + CLAIM_TIMEOUT
    while True:
        # A lease may be forged: never touch an interface of another class, such as a keyboard.
        if not kernel.has(holding) or kernel.attribute(holding.name, "bInterfaceClass") != MASS_STORAGE:
            return None, ""
        driver = kernel.driver(holding)
        if driver not in ("", "usbfs"):
            return None, driver
        # "usbfs" may be the dead process itself, whose claim the kernel has not ended yet: poll until the deadline.
        node = None if driver else _try_claim(kernel, holding)
        if node is not None:
            return node, ""
        if time.monotonic() > deadline:
            return None, "usbfs"
        time.sleep(POLL_INTERVAL)


def _try_claim(kernel: Kernel, holding: Holding) -> int | None:
    """Return the device's node with the interface claimed; None if another program was faster."""
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
    """Run reset recovery (BOT 5.3.4); then reset the port if that failed or a command was interrupted."""
    # Every step is tried, even after one has failed: a failed class reset still leaves halts that can be cleared.
    steps: list[tuple[Callable[[int, int], None], int]] = [(kernel.class_reset, holding.interface)]
    steps += [(kernel.clear_halt, endpoint) for endpoint in (holding.bulk_in, holding.bulk_out)]
    worked = [_succeeds(step, node, argument) for step, argument in steps]
    # Release before the port reset: a reset takes a claimed interface away from usbfs, and the kernel then binds its
    # own driver, also where there was none before.
    kernel.release(node, holding.interface)
    # A device that was left in the middle of a command needs a port reset (seen with Linux 6.1).
    if holding.in_command or not all(worked):
        _succeeds(kernel.reset, node)  # a failure is ignored: the kernel's driver resets a device that does not answer


def _succeeds(step: Callable[..., object], *arguments: Any) -> bool:
    """Run the step and return whether it raised no OSError."""
    try:
        step(*arguments)
    except OSError:
        return False
    return True


def _bind(kernel: Kernel, node: int, holding: Holding) -> tuple[bool, str]:
    """Have the kernel bind a driver, if there was one before. Returns what `give_back` returns."""
    if not holding.had_driver:
        return True, "recovered; it had no kernel driver before"
    _succeeds(kernel.connect, node, holding.interface)
    if not kernel.driver(holding):
        _succeeds(kernel.probe, holding)
    # The kernel's probe may go on after the request, as after a port reset: wait until the driver shows in sysfs.
    deadline = time.monotonic() + BIND_TIMEOUT
    while kernel.has(holding):
        driver = kernel.driver(holding)
        if driver not in ("", "usbfs"):
            return True, f"kernel driver {driver} is bound again"
        if time.monotonic() > deadline:
            return False, "no kernel driver takes it"
        time.sleep(POLL_INTERVAL)
    return True, GONE


# --- leases and processes -----------------------------------------------------------------------


def started(pid: int) -> int | None:
    """Return when the process was started, in the kernel's ticks since boot (proc(5), stat, field 22).

    DEAD if it is a zombie, None if the kernel does not report it, or if /proc is of another PID namespace and would
    report another process. A pid together with its start time names one process, even after the pid is used again.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        with open(f"/proc/{pid}/stat", "rb") as file:
            # Field 2, the command's name in parentheses, may itself hold spaces and parentheses: split after the last.
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return None
    return DEAD if fields[0] in (b"Z", b"X") else int(fields[19])


def lock_for_recovery(descriptor: int) -> bool:
    """Lock a dead process's lease; False if another process is recovering it.

    After LOCK_TIMEOUT seconds this returns True without the lock if no running process took an exclusive one: the
    dead process's lock may live on in a forked child, and any process that may read the file can share the lock. At
    once if only processes have it that are not trusted: another user must not make this one wait.
    """
    if sys.platform == "win32":
        raise OSError(LINUX_ONLY)
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return not is_locked_by_running_process(descriptor)
            if is_locked_by_strangers_only(descriptor):
                return True
            time.sleep(POLL_INTERVAL)


def is_locked_by_running_process(descriptor: int) -> bool:
    """Return whether a running, trusted process took an exclusive lock on the file (proc(5), locks).

    True if /proc/locks cannot be read.
    """
    locks = _locks(descriptor)
    return locks is None or any(kind == b"WRITE" and _may_recover(pid, descriptor) for kind, pid in locks)


def is_locked_by_strangers_only(descriptor: int) -> bool:
    """Return whether each process that took a lock on the file is running and not trusted (proc(5), locks)."""
    locks = _locks(descriptor)
    return bool(locks) and all(_is_stranger(pid, descriptor) for _, pid in locks or [])


def _locks(descriptor: int) -> list[tuple[bytes, int]] | None:
    """Return kind and pid of each lock that was taken on the file by flock(2); None if that cannot be read."""
    # Compared by inode alone: on btrfs, /proc/locks and fstat report different device numbers for one file.
    inode = str(os.fstat(descriptor).st_ino).encode()
    try:
        with open("/proc/locks", "rb") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    # A line is "1: FLOCK ADVISORY WRITE 1234 00:19:5678 0 EOF": 1234 is the process that took the lock, even if only
    # its forked child still has it; 5678 is the inode. A line with "->" is a process that waits for the lock.
    return [(line[3], int(line[4])) for line in lines if line[1] == b"FLOCK" and line[5].rpartition(b":")[2] == inode]


def _may_recover(pid: int, descriptor: int) -> bool:
    """Return whether the process is trusted to recover this lease, and is running."""
    # Any user may read, and so lock, root's leases: such a lock must not keep root's device from its driver.
    return _is_trusted(pid, descriptor) is True and started(pid) not in (None, DEAD)


def _is_stranger(pid: int, descriptor: int) -> bool:
    return _is_trusted(pid, descriptor) is False and started(pid) not in (None, DEAD)


def _is_trusted(pid: int, descriptor: int) -> bool | None:
    """Return whether root, this user or the file's owner runs the process; None if there is no such process."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    return sys.platform != "win32" and owner in (0, os.geteuid(), os.fstat(descriptor).st_uid)


def settle(kernel: Kernel, holding: Holding, pid: int, since: str = "-") -> None:
    """Give back what the dead process `pid` held, and remove its lease if that succeeded.

    `since`: see `listen`; a process of another PID namespace may have the same pid, but not since the same time.
    Does nothing if another process is recovering the interface, or has a lease on it by now. Raises OSError.
    """
    if sys.platform == "win32":
        raise OSError(LINUX_ONLY)
    if holding.lease is None:
        give_back(kernel, holding)
        return
    try:
        lease = os.open(holding.lease, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # The lease was released, or its folder was cleaned. `give_back` leaves a released device alone because it has
        # its driver; a device that never had one cannot be recognized as released, so it is not touched.
        if holding.had_driver:
            give_back(kernel, holding)
        return
    if not lock_for_recovery(lease):
        return
    text = os.pread(lease, MAX_LEASE_SIZE, 0).partition(b"\n")[0]
    process = f', "pid": {pid},' if since == "-" else f', "pid": {pid}, "started": {since},'
    if not text.startswith(process.encode(), IN_COMMAND + 1):
        return  # another process has taken the interface since
    # The lease is newer than what the process sent: it is written before the driver is detached. Two fields are looked
    # up as text, because importing `json` would slow the start.
    holding.in_command = text[IN_COMMAND : IN_COMMAND + 1] != b"0"
    holding.had_driver = b'"driver": null' not in text
    is_done, _ = give_back(kernel, holding)
    if is_done and os.path.samestat(os.fstat(lease), os.lstat(holding.lease)):
        os.unlink(holding.lease)


# --- the process --------------------------------------------------------------------------------


def listen(pid: int, since: str) -> list[Holding]:
    """Read the process's messages until it ends; return what it held then. Answer "who" by the warden's pid.

    `since` is the process's start time as `started` returns it, or "-". Returns an empty list if the process said
    "bye".
    """
    if sys.platform == "win32":
        raise OSError(LINUX_ONLY)
    holdings: dict[str, Holding] = {}
    os.set_blocking(0, False)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    alive = _watch(lambda descriptor: poll.register(descriptor, select.POLLIN), pid, since)
    was_reset = False
    while True:
        # A forked child may keep the socket open after the process has died, so the pidfd is polled too. After the
        # death, read on only until the socket is empty: those are the messages that the process had sent.
        alive = alive and all(descriptor == 0 for descriptor, _ in poll.poll())
        try:
            message = os.read(0, MAX_MESSAGE_SIZE)
        except BlockingIOError:
            if not alive:
                return list(holdings.values())
            continue
        except OSError:
            # ECONNRESET comes once, and before the messages that wait: the process died without reading an answer.
            if not was_reset:
                was_reset = True
                continue
            message = b""
        if not message:
            return list(holdings.values())
        if message == b"bye":
            return []
        if message == b"who":
            _succeeds(os.write, 0, b"up %d" % os.getpid())  # a dead process does not need it
            continue
        _note(holdings, message.decode().split(" "))


def _watch(register: Callable[[int], None], pid: int, since: str) -> bool:
    """Register a pidfd for the process's death, if the kernel supports that; False if it is dead already."""
    if not hasattr(os, "pidfd_open"):
        return True
    try:
        register(os.pidfd_open(pid))
    except ProcessLookupError:
        return False
    except OSError:  # Linux before 5.3 has no pidfd: the end of the socket must do
        return True
    # The pid may have been used again before the pidfd was opened.
    return since == "-" or started(pid) == int(since)


def _note(holdings: dict[str, Holding], words: list[str]) -> None:
    """Apply a "hold" or "drop" message."""
    if words[0] == "hold" and len(holdings) < MAX_HOLDINGS:
        holding = from_words(words[1:])
        holdings[holding.key] = holding
    elif words[0] == "drop":
        holdings.pop(words[1], None)


def main(arguments: list[str]) -> None:
    """Run the warden; `arguments` are PID STARTED SYSFS DEV."""
    if sys.platform == "win32":
        raise OSError(LINUX_ONLY)
    # Signals that are meant for the program, such as systemd's SIGTERM to a whole cgroup, must not end the warden.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    # Close the memfd that holds this program, and anything else inherited: an open device node or lease would keep
    # the device from other programs.
    os.closerange(3, 65536)
    pid, since, sysfs, dev = arguments
    children = []
    for holding in listen(int(pid), since):
        child = os.fork()  # a process for each device, so that one that answers slowly delays no other
        if not child:
            try:
                settle(Kernel(sysfs, dev), holding, int(pid), since)
            finally:
                os._exit(0)  # also after an exception: the child must never run the parent's loop
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[-4:])
