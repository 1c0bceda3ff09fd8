"""The warden: a small process that gives this process's devices back to the kernel if this process dies (Linux).

The kernel does not bind its driver again when a process that claimed an interface dies: without the warden, a crash
would leave the disk without any driver. This module starts the process and sends to it; `warden_main` is its program.
"""

from __future__ import annotations

import logging
import marshal
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.abc import InspectLoader
from pathlib import Path
from typing import Final

from scsiusb.leases import warden_main
from scsiusb.leases.record import Record, holding_of
from scsiusb.leases.warden_main import MAX_MESSAGE_SIZE, started

ON_LINUX: Final = sys.platform == "linux"
SHELL: Final = "/bin/sh"
# A shell starts the warden in the background and ends, so that the warden is no child of this program: the program's
# wait() must not see it, nor the program get a SIGCHLD for it. Without job control a shell connects the standard input
# of a background command to /dev/null: therefore the socket goes through descriptor 3.
SCRIPT: Final = 'exec 3<&0; "$@" <&3 3<&- >/dev/null 2>&1 & echo $!'
# The compiled program is read from a memfd; {} is its descriptor.
LOADER: Final = "import marshal; exec(marshal.loads(open('/proc/self/fd/{}', 'rb').read()))"
INTERPRETERS: Final = ("python", "pypy", "graalpy")  # the names of Python's executables begin so
START_TIMEOUT: Final = 10.0  # seconds, for the shell, and for a wrapper of Python
SEND_TIMEOUT: Final = 5.0  # seconds; while the warden is starting, it does not read, and its socket may be full
POLL_INTERVAL: Final = 0.001  # seconds
RETRY_INTERVAL: Final = 60.0  # seconds from a start that failed to the next one

log = logging.getLogger(__name__)


class Warden:
    """A process's connection to its warden, which the first `hold` starts.

    No method raises an error if the warden cannot be started or reached: the device works without it, so a warning is
    logged once. `sysfs` and `dev` are folders that tests replace. May be used from several threads.
    """

    def __init__(self, sysfs: str = "/sys", dev: str = "/dev") -> None:
        self._roots = (sysfs, dev)
        self._reset()

    @property
    def pid(self) -> int | None:
        """Return the warden's process id; None if there is no warden."""
        return self._pid

    def hold(self, record: Record, lease: Path | None) -> None:
        """Report an interface that this process is about to hold, or a change in its record, to the warden.

        `lease` is the path of the lease, None if there is none. When this returns, the message is in the warden's
        socket: even if this process is killed now, the warden will read it. Does nothing on other platforms than Linux.
        """
        if not ON_LINUX:
            return
        holding = holding_of(record, lease)
        with self._lock:
            self._held[holding.key] = holding.message()
            if not self._send(self._held[holding.key]):
                self._restart()

    def drop(self, record: Record) -> None:
        """Report that the interface was given back. Ignores an interface that was never held."""
        with self._lock:
            key = holding_of(record, None).key
            # If the message is lost, the warden died: a new one must look after the rest, if any.
            if self._held.pop(key, None) is not None and not self._send(f"drop {key}".encode()) and self._held:
                self._restart()

    def close(self) -> None:
        """End the warden, unless something is still held: that it gives back when this process ends.

        May be called again.
        """
        with self._lock:
            if not self._held:
                self._send(b"bye")
                self._disconnect()

    def after_fork(self) -> None:
        """Forget the warden in a forked child, where it is the parent's."""
        self._disconnect()
        # The lock is made anew: another thread of the parent may have held it during the fork.
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._inode = 0
        self._pid: int | None = None
        self._held: dict[str, bytes] = {}
        self._has_warned = False
        self._not_before = 0.0

    def _send(self, message: bytes) -> bool:
        """Send the message; False if there is no warden or it has died."""
        if self._socket is None or not self._is_ours(self._socket):
            return False
        if sys.platform == "win32":
            return False
        try:
            # Python ignores SIGPIPE, but the program may have restored its default action, which ends the process.
            self._socket.send(message, socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def _is_ours(self, connection: socket.socket) -> bool:
        """Return whether the descriptor still is the warden's socket.

        A program that closes all its descriptors, as some do to become a daemon, may have opened another file under
        the same number since.
        """
        try:
            return os.fstat(connection.fileno()).st_ino == self._inode
        except OSError:
            return False

    def _disconnect(self) -> None:
        """Close the socket, unless its number is another file by now."""
        connection, self._socket, self._pid = self._socket, None, None
        if connection is not None:
            if self._is_ours(connection):
                connection.close()
            else:
                connection.detach()

    def _restart(self) -> None:
        """Start a warden, as there is none or it was killed, and report all that is held to it."""
        self._disconnect()
        if time.monotonic() < self._not_before:
            return
        try:
            self._start()
        except (OSError, ValueError, AttributeError, subprocess.SubprocessError) as error:
            self._disconnect()
            # Not tried again at each opening: a start that fails may take as long as START_TIMEOUT.
            self._not_before = time.monotonic() + RETRY_INTERVAL
            self._warn(f"no warden could be started: {error}")
        else:
            if not all(self._send(message) for message in self._held.values()):
                self._warn("the warden does not read its messages")

    def _warn(self, why: str) -> None:
        """Log a warning, the first time only."""
        if not self._has_warned:
            self._has_warned = True
            remedy = "run `scsiusb recover` if this program crashes"
            log.warning("no warden will give devices back if this program crashes: %s; %s", why, remedy)

    def _start(self) -> None:
        """Start the process. Raises OSError, ValueError, AttributeError or SubprocessError."""
        if sys.platform != "linux":
            raise OSError("the warden runs on Linux only")
        # SEQPACKET keeps messages apart, and shows the end of the connection when this process dies.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, os.fdopen(os.memfd_create("warden"), "wb") as program:
            ours.settimeout(SEND_TIMEOUT)
            self._socket, self._inode = ours, os.fstat(ours.fileno()).st_ino
            program.write(_compiled())
            program.flush()
            command = [*_command(program.fileno()), *self._roots]
            self._pid = _spawn(command, theirs.fileno(), program.fileno())
        # After `theirs` is closed here: the end of the warden must show as the end of the connection.
        if not _runs_python(self._pid):
            self._pid = _confirmed(ours)


def _command(program: int) -> list[str]:
    """Return the command that runs the warden, without the roots. Raises OSError if there is no Python to run it.

    There is none in a frozen program, or if Python is embedded in another program.
    """
    # In a program that embeds Python, sys.executable may be that program: starting it would be a surprise.
    executable = sys.executable or ""  # None or "" if Python could not find it, as in some programs that embed it
    is_python = os.path.basename(executable).lower().startswith(INTERPRETERS)
    if getattr(sys, "frozen", False) or not is_python or not os.path.isfile(executable):
        raise OSError("this program does not run in a Python interpreter that could be started again")
    since = started(os.getpid())
    words = [str(os.getpid()), "-" if since is None else str(since)]
    # -I and -S skip the environment and site-packages. The program's name is not read: it is for the readers of `ps`.
    return [executable, "-I", "-S", "-c", LOADER.format(program), os.path.basename(warden_main.__file__), *words]


def _compiled() -> bytes:
    """Return the warden's program as marshalled code. Raises OSError if it cannot be read.

    Python would compile a script anew at each start, which takes longer than the rest of the start.
    """
    loader = warden_main.__spec__.loader if warden_main.__spec__ else None
    code = loader.get_code(warden_main.__name__) if isinstance(loader, InspectLoader) else None
    if code is None:
        raise OSError("its program cannot be read")
    return marshal.dumps(code)


def _spawn(command: list[str], connection: int, program: int) -> int:
    """Start the command with the socket `connection` as its standard input, and return its pid once it is executed.

    Raises OSError, ValueError or SubprocessError.
    """
    if sys.platform != "linux":
        raise OSError("the warden runs on Linux only")
    # The warden inherits the signal mask. A signal to the process group, such as Ctrl-C, would otherwise end the shell
    # or the warden before it has blocked signals itself.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with subprocess.Popen(
            [SHELL, "-c", SCRIPT, "scsiusb", *command],
            stdin=connection,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",  # keeps no file system from being unmounted
            # A Python that is not in the system's folders may need LD_LIBRARY_PATH to start; the warden needs no more.
            env={name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"},
            pass_fds=[program],
            start_new_session=True,
        ) as shell:
            try:
                said, _ = shell.communicate(timeout=START_TIMEOUT)
            except BaseException:
                shell.kill()
                raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    pid = int(said)
    _wait_for_exec(pid)
    return pid


def _arguments(pid: int) -> list[bytes]:
    """Return the arguments of a process (proc(5), cmdline). Raises OSError."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _wait_for_exec(pid: int) -> None:
    """Wait until the process, at first a copy of the shell, has executed its command; OSError if it ends instead."""
    shell, deadline = os.path.realpath(SHELL), time.monotonic() + START_TIMEOUT
    try:
        # The same shell may run a script that the command is: a wrapper of Python. Then its arguments are others.
        while os.readlink(f"/proc/{pid}/exe") == shell and SCRIPT.encode() in _arguments(pid):
            if time.monotonic() > deadline:
                raise OSError(f"the process was not executed within {START_TIMEOUT:g} seconds")
            time.sleep(POLL_INTERVAL)
    except FileNotFoundError:
        raise OSError(f"{sys.executable} ended at once") from None


def _runs_python(pid: int) -> bool:
    """Return whether the process executes the interpreter itself, not a wrapper of it, which may do anything."""
    try:
        return os.path.samefile(f"/proc/{pid}/exe", sys.executable)
    except OSError:
        return False


def _confirmed(connection: socket.socket) -> int:
    """Ask the warden for its pid, and return it.

    Raises OSError if no answer comes: a wrapper that does not hand on standard input or the memfd makes no warden.
    """
    connection.settimeout(START_TIMEOUT)
    try:
        connection.send(b"who")
        words = connection.recv(MAX_MESSAGE_SIZE).split()
    except OSError:  # also where it has ended without reading the question
        words = []
    finally:
        connection.settimeout(SEND_TIMEOUT)
    if words[:1] != [b"up"]:
        raise OSError(f"{sys.executable} does not run it; a wrapper must hand on all arguments and open files")
    return int(words[1])
