"""Other processes that start at once: forks of one that has imported everything already.

On Linux only, which has pidfds to wait for a grandchild; elsewhere each one is a fresh interpreter. A test of what an
interpreter imports, or of how the program starts, needs a fresh one anyway.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from importlib import import_module
from types import CodeType
from typing import IO, Any, NoReturn

IMPORTS = (
    "scsiusb.disk.disk",
    "scsiusb.leases.lease",
    "scsiusb.leases.warden",
    "scsiusb.manager.registry",
    "scsiusb.opening",
    "scsiusb.virtual",
    "tests.leases.usbfs",
    "tests.sticks",
    "tests.usb.libusb.watched",
)
LONGEST = 1 << 20  # bytes of a request
SERVE = "from tests import forkserver; exec(forkserver.serve({}))"


# --- in the tests' process ------------------------------------------------------------------------


class ForkServer:
    """The process that forks: a request is JSON and, to start something, its three streams."""

    def __init__(self) -> None:
        self._socket, theirs = _socket_pair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE.format(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment(),
            )

    def ask(self, streams: list[int], **request: Any) -> int:
        """Send a request; return the pid or the wait status that is its answer."""
        if sys.platform != "linux":
            raise NotImplementedError
        socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
        return int(self._socket.recv(LONGEST))

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    if sys.platform != "linux":
        raise NotImplementedError
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@functools.cache
def _server() -> ForkServer:
    made = ForkServer()
    atexit.register(made.close)
    return made


class Child:
    """A fork that runs some code; used like a `subprocess.Popen` with text pipes."""

    def __init__(self, code: str, arguments: list[str], env: dict[str, str], stderr: int | None, session: bool) -> None:
        self.returncode: int | None = None
        self.stderr: IO[str] | None = None
        stdin, ours_in = os.pipe()
        ours_out, stdout = os.pipe()
        theirs = [stdin, stdout]
        if stderr == subprocess.PIPE:
            ours_err, their_err = os.pipe()
            theirs.append(their_err)
            self.stderr = os.fdopen(ours_err, encoding="utf-8")
        self.stdin: IO[str] = os.fdopen(ours_in, "w", encoding="utf-8")
        self.stdout: IO[str] = os.fdopen(ours_out, encoding="utf-8")
        streams = theirs if self.stderr else [*theirs, 2]
        self._server = _server()
        self.pid = self._server.ask(
            streams, code=code, arguments=arguments, env=env, session=session, folder=os.getcwd()
        )
        self._pidfd = _pidfd(self.pid)
        for descriptor in theirs:
            os.close(descriptor)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()
        os.close(self._pidfd)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        if sys.platform != "linux":
            raise NotImplementedError
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return the exit status, or minus the signal. Raises subprocess.TimeoutExpired."""
        if sys.platform != "linux":
            raise NotImplementedError
        if self.returncode is None:
            ending = select.poll()
            ending.register(self._pidfd, select.POLLIN)
            if timeout is not None and not ending.poll(timeout * 1000):
                raise subprocess.TimeoutExpired("a fork", timeout)
            self.returncode = os.waitstatus_to_exitcode(self._server.ask([], wait=self.pid))
        return self.returncode


def _pidfd(pid: int) -> int:
    if sys.platform != "linux":
        raise NotImplementedError
    return os.pidfd_open(pid)


Process = Child | subprocess.Popen[str]


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a Python that finds what this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **changes}


def start(
    code: str, *arguments: object, env: dict[str, str] | None = None, stderr: int | None = None, session: bool = False
) -> Process:
    """Run the code in another process whose stdin and stdout are pipes; `session`: it is the leader of a new one."""
    words, env = [str(argument) for argument in arguments], env or environment()
    if hasattr(os, "pidfd_open") and sys.platform == "linux":
        return Child(code, words, env, stderr, session)
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=env,
        start_new_session=session,
    )


# --- in the fork server ----------------------------------------------------------------------------


def serve(descriptor: int) -> CodeType:
    """Answer requests until the tests' process has gone; in a fork, return the code that it is to run."""
    if sys.platform != "linux":
        raise NotImplementedError
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and then this process
    for name in IMPORTS:
        import_module(name)
    gc.freeze()
    requests = socket.socket(fileno=descriptor)
    while True:
        message, streams, _, _ = socket.recv_fds(requests, LONGEST, 3)
        if not message:
            _end()
        request = json.loads(message)
        answer = os.waitpid(request["wait"], 0)[1] if "wait" in request else os.fork()
        if answer == 0 and streams:
            requests.close()
            return _become(request, streams)
        for each in streams:
            os.close(each)
        requests.send(b"%d" % answer)


def _end() -> NoReturn:
    sys.exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> CodeType:
    """Make this fork what a fresh interpreter would be."""
    if sys.platform != "linux":
        raise NotImplementedError
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["session"]:
        os.setsid()
    for number, each in enumerate(streams):
        os.dup2(each, number)
    for each in streams:
        os.close(each)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["-c", *request["arguments"]]
    return compile(request["code"], "<string>", "exec")
