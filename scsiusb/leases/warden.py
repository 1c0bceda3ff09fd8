"""The warden: a small process of ours that gives the devices back if this process dies without doing so (Linux)."""

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
from scsiusb.leases.warden_main import started

ON_LINUX: Final = sys.platform == "linux"
SHELL: Final = "/bin/sh"
# The warden is the shell's child, and soon nobody's: this program's wait() and SIGCHLD are its own affair. A shell
# without job control would give what it starts in the background /dev/null in the place of our socket.
SCRIPT: Final = 'exec 3<&0; "$@" <&3 3<&- >/dev/null 2>&1 & echo $!'
LOADER: Final = "import marshal; exec(marshal.loads(open('/proc/self/fd/{}', 'rb').read()))"
START_PATIENCE: Final = 10.0  # seconds, for the shell
SEND_PATIENCE: Final = 5.0  # for a warden that is still starting to read what is in its socket
PAUSE: Final = 0.001

log = logging.getLogger(__name__)


class Warden:
    """Starts the process with the first hold. Its troubles are never the caller's: a warning, once."""

    def __init__(self, sysfs: str = "/sys", dev: str = "/dev") -> None:
        self._roots = (sysfs, dev)
        self._reset()

    @property
    def pid(self) -> int | None:
        return self._pid

    def hold(self, record: Record, lease: Path | None) -> None:
        """Returns when the warden, though maybe still starting, cannot but learn of it. Again: what changed."""
        if not ON_LINUX:
            return
        holding = holding_of(record, lease)
        with self._lock:
            self._held[holding.key] = holding.message()
            if not self._send(self._held[holding.key]):
                self._restart()

    def drop(self, record: Record) -> None:
        """It was given back. Quiet about what was never held."""
        with self._lock:
            key = holding_of(record, None).key
            if self._held.pop(key, None) is not None and not self._send(f"drop {key}".encode()) and self._held:
                self._restart()

    def close(self) -> None:
        """Good-bye: the process ends by itself, whatever it was told."""
        with self._lock:
            self._send(b"bye")
            self._hang_up()
            self._held.clear()

    def after_fork(self) -> None:
        """In a fork's child: the process is the parent's, and so may be the lock."""
        self._hang_up()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._inode = 0
        self._pid: int | None = None
        self._held: dict[str, bytes] = {}
        self._has_warned = False

    def _send(self, message: bytes) -> bool:
        """Without SIGPIPE, which the program may have set to kill it."""
        if self._socket is None or not self._is_ours(self._socket):
            return False
        try:
            self._socket.send(message, socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def _is_ours(self, connection: socket.socket) -> bool:
        """A program that closes all descriptors may have another file under the number by now."""
        try:
            return os.fstat(connection.fileno()).st_ino == self._inode
        except OSError:
            return False

    def _hang_up(self) -> None:
        connection, self._socket, self._pid = self._socket, None, None
        if connection is not None:
            if self._is_ours(connection):
                connection.close()
            else:
                connection.detach()

    def _restart(self) -> None:
        """There is none yet, or it was killed."""
        self._hang_up()
        try:
            self._start()
        except (OSError, ValueError, AttributeError, subprocess.SubprocessError) as error:
            self._hang_up()
            self._warn(f"no warden could be started: {error}")
        else:
            if not all(self._send(message) for message in self._held.values()):
                self._warn("the warden does not listen")

    def _warn(self, why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            remedy = "run `scsiusb recover` if this program should crash"
            log.warning("nothing looks after the devices held: %s; %s", why, remedy)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, os.fdopen(os.memfd_create("warden"), "wb") as program:
            ours.settimeout(SEND_PATIENCE)
            self._socket, self._inode = ours, os.fstat(ours.fileno()).st_ino
            program.write(_compiled())
            program.flush()
            command = [*_command(program.fileno()), *self._roots]
            self._pid = _spawn(command, theirs.fileno(), program.fileno())


def _command(program: int) -> list[str]:
    """Named in what `ps` shows. OSError where there is no Python to run it, as in a frozen program."""
    is_python = "py" in os.path.basename(sys.executable).lower()  # not so where Python is part of another program
    if getattr(sys, "frozen", False) or not is_python or not os.path.isfile(sys.executable):
        raise OSError("this program is not run by a Python interpreter that could be started again")
    since = started(os.getpid())
    words = [str(os.getpid()), "-" if since is None else str(since)]
    return [sys.executable, "-I", "-S", "-c", LOADER.format(program), os.path.basename(warden_main.__file__), *words]


def _compiled() -> bytes:
    """The warden's program. Python would compile a script at each start, which takes longer than all the rest."""
    loader = warden_main.__spec__.loader if warden_main.__spec__ else None
    code = loader.get_code(warden_main.__name__) if isinstance(loader, InspectLoader) else None
    if code is None:
        raise OSError("its program cannot be read")
    return marshal.dumps(code)


def _spawn(command: list[str], connection: int, program: int) -> int:
    """Its pid, as soon as it runs its own program. It inherits that all signals are blocked, and keeps them so."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with subprocess.Popen(
            [SHELL, "-c", SCRIPT, "scsiusb", *command],
            stdin=connection,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"},
            pass_fds=[program],
            start_new_session=True,
        ) as shell:
            try:
                said, _ = shell.communicate(timeout=START_PATIENCE)
            except BaseException:
                shell.kill()
                raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    pid = int(said)
    _wait_for_exec(pid)
    return pid


def _wait_for_exec(pid: int) -> None:
    """Until then it is a copy of the shell; OSError if it ends instead."""
    shell, deadline = os.path.realpath(SHELL), time.monotonic() + START_PATIENCE
    while os.readlink(f"/proc/{pid}/exe") == shell:
        if time.monotonic() > deadline:
            raise OSError("it does not come up")
        time.sleep(PAUSE)
