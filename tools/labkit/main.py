"""The lab's command line."""

from __future__ import annotations

import argparse
import fcntl
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from . import zoo
from .guest import Boot, Guest, Limits, interactive, keep
from .host import CACHE, PYTHON, ROOT, VENV, LabError, say
from .marks import BEGIN, END
from .native import Native
from .qemu import Qemu

NO_TESTS = 5  # pytest's exit status when it collected nothing
USAGE = """\
tools/lab [options] [PYTEST-ARGUMENT...]   run tests/kernel in the guest
tools/lab [options] run [--] COMMAND...    run any command in the guest, in the checkout's folder
tools/lab [options] shell                  get a prompt in the guest
tools/lab [options] prepare                only install and make what the guest needs"""
LIMITS = {
    "boot": (600, "kill a guest that is not up after so many seconds"),
    "silence": (900, "kill a guest whose command says nothing for so many seconds"),
    "total": (3600, "kill a guest after so many seconds"),
}
HELP = ("-h", "--help")
FLAGS = (*HELP, "--native")
OWN = (*FLAGS, "--zoo", *(f"--{name}" for name in LIMITS))
MODES = ("run", "shell", "prepare")
TESTS = "tests/kernel"
WELCOME = """
The zoo is attached: try `lsusb -t`, `ls /dev/sg*`, `scsiusb list`, `sg_inq /dev/sg1`.
The devices are described in $SCSIUSB_LAB/zoo.json. `exit` ends the guest.

"""


class Lab(Protocol):
    """One kind of guest: what it needs, the devices that it can have, and how it boots."""

    name: str
    zoos: Mapping[str, Sequence[zoo.Device]]
    scripts: Sequence[str]

    def prepare(self) -> None:
        """Install and make what is missing on the host."""

    def furnish(self, work: Path, devices: Sequence[zoo.Device]) -> dict[str, object]:
        """Fill the work folder; return the settings for the guest's script."""

    def boot(self, work: Path, shell: bool) -> Boot:
        """Return how to start the guest."""


def main(arguments: list[str]) -> int:
    """Run the lab and return the exit status."""
    signal.signal(signal.SIGTERM, _terminated)
    options, rest = parse(arguments)
    try:
        return _run(options, rest)
    except LabError as error:
        say(f"error: {error}")
        return error.status
    except KeyboardInterrupt:
        return 130


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take the lab's own options, which come first; all the rest belongs to what is run."""
    parser = argparse.ArgumentParser(prog="tools/lab", usage=USAGE, description=__doc__, allow_abbrev=False)
    for name, (default, text) in LIMITS.items():
        parser.add_argument(f"--{name}", type=float, default=default, metavar="S", help=f"{text} (default {default})")
    parser.add_argument("--native", action="store_true", help="a guest without QEMU, which starts in seconds")
    parser.add_argument("--zoo", choices=zoo.ZOOS, default="tests", help="which devices there are (default tests)")
    own = 0
    while own < len(arguments) and arguments[own].partition("=")[0] in OWN:
        own += 1 if "=" in arguments[own] or arguments[own] in FLAGS else 2
    return parser.parse_args(arguments[:own]), arguments[own:]


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    mode = rest.pop(0) if rest and rest[0] in MODES else "test"
    if rest and rest[0] == "--":
        rest.pop(0)
    if mode == "run" and not rest:
        raise LabError("run needs a command", 2)
    if mode == "shell" and not sys.stdin.isatty():
        raise LabError("shell needs a terminal", 2)
    lab: Lab = Native() if options.native else Qemu()
    _prepare(lab)
    if mode == "prepare":
        return 0
    command = rest if mode == "run" else _pytest(rest)
    with _work_folder() as work:
        _furnish(work, lab, command, mode, options.zoo)
        say(f"booting the {lab.name} guest")
        boot = lab.boot(work, mode == "shell")
        if mode == "shell":
            return interactive(boot, work)
        status = _watch(boot, work, options)
    if mode == "test" and status == NO_TESTS:
        raise LabError("no test ran", NO_TESTS)
    return status


def _prepare(lab: Lab) -> None:
    """Install and make what is missing; one lab at a time."""
    if sys.platform != "linux":
        raise NotImplementedError
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lab.prepare()


def _pytest(rest: list[str]) -> list[str]:
    """Only the plugins needed: each costs seconds of import under emulation."""
    words = ["-p", "pytest_timeout", "-p", "no:cacheprovider", "--timeout=600"]
    where = [] if any(word.startswith(TESTS) for word in rest) else [TESTS]
    # BUILD_NUMBER: the summary then has the whole message of a failure, which may be all that is kept of a run.
    return [
        "env",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1",
        "BUILD_NUMBER=0",
        str(PYTHON),
        "-m",
        "pytest",
        *words,
        *where,
        *rest,
    ]


@contextmanager
def _work_folder() -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix="scsiusb-lab-"))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _furnish(work: Path, lab: Lab, command: list[str], mode: str, name: str) -> None:
    """Fill the work folder, of which the guest sees the share."""
    share = work / "share"
    share.mkdir()
    devices = lab.zoos[name]
    settings = {
        "ROOT": ROOT,
        "VENV": VENV,
        "CACHE": CACHE,
        "KIND": lab.name,
        "ZOO": name,
        "MODE": mode,
        "BEGIN": BEGIN.decode(),
        "END": END.decode(),
        "INTERFACES": len(devices),
        **lab.furnish(work, devices),
    }
    (share / "settings").write_text("".join(f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items()))
    # pytest's words must keep their order when they come from two streams.
    (share / "command").write_text(f"exec {shlex.join(command)}{' 2>&1' if mode == 'test' else ''}\n")
    (share / "welcome").write_text(WELCOME)
    for script in (*lab.scripts, "common.sh"):
        shutil.copy(Path(__file__).with_name(script), share)
        (share / script).chmod(0o755)
    zoo.describe(share, devices)


def _watch(boot: Boot, work: Path, options: argparse.Namespace) -> int:
    status = None
    try:
        with Guest(boot, work, Limits(options.boot, options.silence, options.total)) as guest:
            status = guest.run()
    finally:
        if status != 0:
            keep(work, CACHE / "logs")
    return status
