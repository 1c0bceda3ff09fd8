"""The program as a process: streams, signals, terminal and start."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.sticks import PATIENCE

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")
PROGRAM = [sys.executable, "-m", "scsiusb"]


def shell(command: str, **places: object) -> subprocess.CompletedProcess[str]:
    """Run a line of sh in which {scsiusb} is the program; return its result."""
    line = command.format(scsiusb=f"'{sys.executable}' -m scsiusb", **places)
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=PATIENCE)


def loaded_by(code: str) -> set[str]:
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ended.stdout.splitlines())


def test_version_loads_nothing_that_it_does_not_need() -> None:
    code = "sys.argv = ['scsiusb', '--version']\nfrom scsiusb.__main__ import main\nassert main() == 0"
    roots = {name.partition(".")[0] for name in loaded_by(code)}
    assert not roots & {"click", "construct", "usb", "rich", "libusb_package", "logging"}


def test_importing_the_package_loads_no_other_module_of_it() -> None:
    ours = {name for name in loaded_by("import scsiusb") if name.startswith("scsiusb")}
    assert ours == {"scsiusb", "scsiusb._version"}


def test_a_piped_command_does_not_load_rich() -> None:
    code = "from scsiusb.cli.app import run\nassert run(['capacity', 'virtual:']) == 0"
    assert "rich" not in loaded_by(code)


@pytest.mark.slow
@on_posix
@pytest.mark.parametrize("words", ["read virtual:", "capacity --help"])
def test_a_full_or_closed_stdout_is_one_error(words: str) -> None:
    for place in (">/dev/full", ">&-"):
        if place == ">/dev/full" and not os.path.exists("/dev/full"):
            continue
        ended = shell(f"{{scsiusb}} {words} {place}")
        assert ended.returncode == 15
        assert ended.stderr.startswith(("scsiusb: error: stdout: ", "scsiusb: error: the output: "))
        assert ended.stderr.count("\n") == 1


@on_posix
def test_a_reader_that_closes_the_pipe_ends_it_quietly(tmp_path: Path) -> None:
    status = tmp_path / "status"
    ended = shell("({scsiusb} read virtual: --blocks 16384; echo $? >{status}) | head -c1", status=status)
    assert ended.stderr == ""
    assert status.read_text() == "141\n"


@pytest.mark.slow
@on_posix
def test_closed_streams(tmp_path: Path) -> None:
    """No device or file may get the file descriptor of a missing stream."""
    image = tmp_path / "image"
    image.write_bytes(bytes(512))
    assert shell("{scsiusb} capacity virtual: <&- 2>&-").stdout.startswith("blocks ")
    ended = shell("{scsiusb} write virtual:{image} --lba 0 -i - --yes <&-", image=image)
    assert ended.returncode == 15
    assert ended.stderr.startswith("scsiusb: error: stdin: ")
    ended = shell("{scsiusb} read virtual:{image} -o {image}2 >&- 2>&- <&-", image=image)
    assert ended.returncode == 0
    assert image.with_name("image2").read_bytes() == bytes(512)


@on_posix
def test_a_name_that_the_terminal_cannot_show_is_escaped() -> None:
    ended = shell("LC_ALL=C.UTF-8 PYTHONIOENCODING=latin-1 {scsiusb} inquiry virtual:/€")
    assert ended.returncode == 15
    assert ended.stderr == "scsiusb: error: /\\u20ac: No such file or directory; check the path\n"


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="needs Linux's /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_long_read(tmp_path: Path, number: int, status: int) -> None:
    stick = tmp_path / "stick"
    with stick.open("wb") as file:
        file.truncate(1 << 40)
    command = [*PROGRAM, "read", f"virtual:{stick}", "--blocks", str(1 << 31), "-o", "/dev/null"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=enable_sigint) as running:
        wait_for(lambda: bytes_read(running.pid) > 1 << 24)
        running.send_signal(number)
        _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == status
    assert err.startswith("scsiusb: error: ")
    assert err.count("\n") == 1


def enable_sigint() -> None:
    """A test run in the background may have been started with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def bytes_read(pid: int) -> int:
    counters = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counters["rchar"])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def terminal_environment() -> dict[str, str]:
    """Return the environment without a size of the terminal, which pytest-xdist sets and which would be believed."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return {**inherited, "TERM": "xterm", "NO_COLOR": "1"}


def start_on_terminal(columns: int, words: Sequence[str]) -> tuple[int, int]:
    """Start the program on a new pseudo terminal; return its process id and the terminal's descriptor."""
    if sys.platform == "win32":
        pytest.skip("there is no pseudo terminal")
    import fcntl
    import pty
    import struct
    import termios

    pid, descriptor = pty.fork()
    if pid == 0:  # pragma: no cover - the process is replaced
        enable_sigint()
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execvpe(PROGRAM[0], [*PROGRAM, *words], terminal_environment())
    return pid, descriptor


class Terminal:
    """The program on a pseudo terminal."""

    def __init__(self, *words: str, columns: int = 80) -> None:
        self.pid, self.descriptor = start_on_terminal(columns, words)
        self.screen = ""

    def until(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.screen:
            assert time.monotonic() < deadline, self.screen
            assert self._read(), self.screen

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self.descriptor)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> bool:
        ready, _, _ = select.select([self.descriptor], [], [], PATIENCE)
        assert ready, self.screen
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # EIO: the other end is closed
            return False
        self.screen += data.decode()
        return bool(data)


@pytest.mark.slow
@on_posix
def test_a_write_on_a_terminal_asks_once(tmp_path: Path) -> None:
    image, stick = tmp_path / "image", tmp_path / "stick"
    image.write_bytes(b"x" * 512)
    stick.write_bytes(bytes(1024))
    refused = Terminal("write", f"virtual:{stick}", "--lba", "1", "-i", str(image))
    refused.until("[y/N] ")
    refused.type("n\n")
    assert refused.end() == 1
    assert stick.read_bytes() == bytes(1024)
    agreed = Terminal("write", f"virtual:{stick}", "--lba", "1", "-i", str(image))
    agreed.until("[y/N] ")
    agreed.type("y\n")
    assert agreed.end() == 0
    assert stick.read_bytes() == bytes(512) + b"x" * 512


@on_posix
def test_ctrl_c_under_a_progress_bar_leaves_one_error_line(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    with stick.open("wb") as file:
        file.truncate(1 << 40)
    terminal = Terminal("read", f"virtual:{stick}", "--blocks", str(1 << 31), "-o", "/dev/null")
    terminal.until("reading")
    terminal.type("\x03")
    assert terminal.end() == 130, terminal.screen
    assert terminal.screen.count("scsiusb: error: interrupted: read ") == 1
    assert "\x1b[?25h" in terminal.screen, "the cursor is shown again"


@on_posix
def test_a_narrow_terminal_shows_everything() -> None:
    terminal = Terminal("luns", "virtual:", columns=30)
    assert terminal.end() == 0
    assert terminal.screen.splitlines() == [
        "LUN      0",
        "vendor   scsiusb",
        "product  Virtual Stick",
        "type     disk",
        "ready    yes",
    ]
