"""The lab's command line."""

from __future__ import annotations

import argparse
import fcntl
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from . import zoo
from .guest import Guest, Limits, boot_command, interactive, keep
from .host import CACHE, PYTHON, ROOT, VENV, LabError, say
from .images import checkout_image, python_image, python_paths
from .kernel import kernel
from .marks import BEGIN, END
from .packages import prepare

NO_TESTS = 5  # pytest's exit status when it collected nothing
USAGE = """\
tools/lab [options] [PYTEST-ARGUMENT...]   run tests/kernel in the guest
tools/lab [options] run [--] COMMAND...    run any command in the guest, in the checkout's folder
tools/lab [options] shell                  get a prompt in the guest
tools/lab prepare                          only install and make what the lab needs"""
LIMITS = {
    "boot": (600, "kill a guest that is not up after so many seconds"),
    "silence": (300, "kill a guest whose command says nothing for so many seconds"),
    "total": (3600, "kill a guest after so many seconds"),
}
HELP = ("-h", "--help")
OWN = (*HELP, "--zoo", *(f"--{name}" for name in LIMITS))
MODES = ("run", "shell", "prepare")
TESTS = "tests/kernel"
WELCOME = """
The zoo is attached: try `lsusb -t`, `ls /dev/sg*`, `scsiusb list`, `sg_inq /dev/sg1`.
The devices are described in $SCSIUSB_LAB/zoo.json. `exit` ends the guest.

"""


def main(arguments: list[str]) -> int:
    """Run the lab and return the exit status."""
    signal.signal(signal.SIGTERM, _terminated)
    options, rest = _parse(arguments)
    try:
        return _run(options, rest)
    except LabError as error:
        say(f"error: {error}")
        return error.status
    except KeyboardInterrupt:
        return 130


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take the lab's own options, which come first; all the rest belongs to what is run."""
    parser = argparse.ArgumentParser(prog="tools/lab", usage=USAGE, description=__doc__, allow_abbrev=False)
    for name, (default, text) in LIMITS.items():
        parser.add_argument(f"--{name}", type=float, default=default, metavar="S", help=f"{text} (default {default})")
    parser.add_argument("--zoo", choices=zoo.ZOOS, default="tests", help="which devices there are (default tests)")
    own = 0
    while own < len(arguments) and arguments[own].partition("=")[0] in OWN:
        own += 1 if "=" in arguments[own] or arguments[own] in HELP else 2
    return parser.parse_args(arguments[:own]), arguments[own:]


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    mode = rest.pop(0) if rest and rest[0] in MODES else "test"
    if rest and rest[0] == "--":
        rest.pop(0)
    if mode == "run" and not rest:
        raise LabError("run needs a command", 2)
    if mode == "shell" and not sys.stdin.isatty():
        raise LabError("shell needs a terminal", 2)
    image, python = _prepare()
    if mode == "prepare":
        return 0
    command = rest if mode == "run" else _pytest(rest)
    with _work_folder() as work:
        devices = _furnish(work, python, command, mode, zoo.ZOOS[options.zoo])
        say(f"booting {image}")
        boot = boot_command(image, work, devices, mode == "shell")
        if mode == "shell":
            return interactive(boot, work)
        status = _watch(boot, work, options)
    if mode == "test" and status == NO_TESTS:
        raise LabError("no test ran", NO_TESTS)
    return status


def _prepare() -> tuple[Path, Path]:
    """Install and make what is missing; one lab at a time."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare()
        return kernel(), python_image()


def _pytest(rest: list[str]) -> list[str]:
    """Only the plugins needed: each costs seconds of import under emulation."""
    words = ["-p", "pytest_timeout", "-p", "no:cacheprovider", "--timeout=240"]
    where = [] if any(word.startswith(TESTS) for word in rest) else [TESTS]
    return ["env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", str(PYTHON), "-m", "pytest", *words, *where, *rest]


@contextmanager
def _work_folder() -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix="scsiusb-lab-"))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _furnish(work: Path, python: Path, command: list[str], mode: str, devices: Sequence[zoo.Device]) -> list[str]:
    """Fill the work folder; return QEMU's options for the zoo."""
    share = work / "share"
    for folder in (share, work / "zoo"):
        folder.mkdir()
    (work / "python.img").symlink_to(python)
    checkout_image(work / "checkout.img")
    stdlib, site = python_paths()
    settings = {
        "ROOT": ROOT,
        "VENV": VENV,
        "CACHE": CACHE,
        "STDLIB": stdlib,
        "SITE": site,
        "MODE": mode,
        "BEGIN": BEGIN.decode(),
        "END": END.decode(),
        "INTERFACES": len(devices),
    }
    (share / "settings").write_text("".join(f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items()))
    # pytest's words must keep their order when they come from two streams.
    (share / "command").write_text(f"exec {shlex.join(command)}{' 2>&1' if mode == 'test' else ''}\n")
    (share / "welcome").write_text(WELCOME)
    shutil.copy(Path(__file__).with_name("guest.sh"), share / "guest.sh")
    (share / "guest.sh").chmod(0o755)
    return zoo.build(work / "zoo", share, devices)


def _watch(boot: list[str], work: Path, options: argparse.Namespace) -> int:
    status = None
    try:
        with Guest(boot, work, Limits(options.boot, options.silence, options.total)) as guest:
            status = guest.run()
    finally:
        if status != 0:
            keep(work, CACHE / "logs")
    return status
