"""Every failure is one line with a remedy, and the exit status of sg3_utils(8)."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from scsiusb.cli import device as session
from scsiusb.cli import failure, output, process
from scsiusb.cli.failure import failure_of
from scsiusb.errors import CheckCondition
from scsiusb.usb.backend import ENDPOINT_IN, Code
from scsiusb.virtual import Stick, Unit, VirtualHandle, uas_interface
from tests.cli.conftest import Attached, Cli
from tests.sticks import CSW_LENGTH, Answer, Wire, csw, stick


def uas_only() -> Stick:
    return Stick([Unit()], interfaces=[uas_interface(alternate=0)])


def test_a_serial_that_is_no_text_is_one_as_a_hostile_device_may_have_it(cli: Cli) -> None:
    """The bytes of an argument that the system's encoding does not know become surrogates."""
    ended = cli("capacity", "virtual:?serial=\udcff\udcfe", "--json")
    assert ended.status == 0
    assert ended.json["device"]["serial"] == "\ufffd\ufffd"


def test_an_empty_removable_unit_is_not_ready_but_answers_inquiry(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit()]))
    assert cli("read").failed(2, "no medium")
    assert cli("capacity").failed(2, "no medium")
    assert cli("inquiry").status == 0


def test_an_empty_cd_rom_drive(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit.cd_rom()]))
    assert cli("capacity", "--json").failed(2, "no medium")
    assert cli("inquiry", "--json").json["peripheral_device_type"] == 5


def test_what_the_device_cannot_speak_is_refused_and_nothing_is_detached(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(uas_only())
    monkeypatch.setattr(VirtualHandle, "detach_driver", lambda *_: pytest.fail("detached"))
    assert cli("list", "--json").json[0]["protocol"] == "uas"
    assert cli("inquiry", "--transport", "bot").failed(15, "no setting for BOT", "use the transport 'auto'")
    assert cli("inquiry", "--quirks", "1209:0001:u").failed(15, "must not be used by UAS")


def test_a_mounted_stick_is_refused_with_its_mount_point(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = stick()
    target.uses = ["/dev/sda1 is mounted on /media/stick"]
    attach(target)
    monkeypatch.setattr(VirtualHandle, "detach_driver", lambda *_: pytest.fail("detached"))
    assert cli("read").failed(15, "/dev/sda1 is mounted on /media/stick", "unmount it first")


def test_no_permission(cli: Cli, attach: Attached) -> None:
    target = stick()
    target.accessible = False
    attach(target)
    assert cli("capacity").failed(15, "permission denied", "udev")


def test_two_matches_are_both_listed(cli: Cli, attach: Attached) -> None:
    bus = attach(stick(), stick())
    for words in ([], ["1209:0001"], ["serial=0123456789AB"]):
        assert cli("inquiry", *words).failed(15, "1-1", "1-2")
    assert bus.wire.log == []


@pytest.mark.parametrize(
    "device",
    [
        "",
        " ",
        "9-9",
        "dead:beef",
        "serial=none",
        "serial=",
        "virtual",
        "x" * 99,
        "ü\x1b[2J\n",
        "\udcff",
        "virtual:/no",
    ],
)
def test_a_device_that_is_not_there(cli: Cli, attach: Attached, device: str) -> None:
    bus = attach(stick())
    ended = cli("inquiry", device)
    assert ended.failed(15)
    assert "\x1b" not in ended.err
    assert bus.wire.log == []


def test_no_device_at_all(cli: Cli) -> None:
    assert cli("capacity").failed(15, "no mass-storage device is attached")


def test_a_lun_that_the_device_does_not_have(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("inquiry", "--lun", "9").failed(15, "no LUN 9")
    assert cli("inquiry", "--lun", "16").failed(1, "--lun", "16 is not from 0 to 15")
    assert cli("inquiry", "--lun", "-1").failed(1, "--lun")


@pytest.mark.parametrize("length", [0, 3, 513])
def test_a_virtual_file_of_the_wrong_length_is_named(cli: Cli, tmp_path: Path, length: int) -> None:
    path = tmp_path / "odd"
    path.write_bytes(bytes(length))
    assert cli("inquiry", f"virtual:{path}").failed(
        1, f"virtual:{path}: {length} bytes", f"truncate -s {length // 512 * 512 + 512} "
    )
    assert cli("quirks", f"virtual:{path}").failed(1, f"virtual:{path}: {length} bytes")


def test_a_directory_is_no_virtual_stick(cli: Cli, tmp_path: Path) -> None:
    assert cli("inquiry", f"virtual:{tmp_path}").failed(15, str(tmp_path))


def test_a_device_that_goes_away(cli: Cli, attach: Attached) -> None:
    def unplug(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if wire.opcode == 0x28:
            attach.bus.unplug(target)
        return None

    target = stick()
    attach(target).wire.intercept = unplug
    assert cli("read").failed(35, "gone")


def test_a_device_that_does_not_answer(cli: Cli, attach: Attached) -> None:
    def silent(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        return (Code.TIMEOUT, 0) if wire.opcode == 0x25 and endpoint & ENDPOINT_IN else None

    attach(stick()).wire.intercept = silent
    assert cli("capacity").failed(33, "did not answer in time", "timeout")


def test_an_invalid_csw_signature(cli: Cli, attach: Attached) -> None:
    def corrupt(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if wire.opcode == 0x00 and endpoint & ENDPOINT_IN and len(buffer) >= CSW_LENGTH:
            return wire.put(buffer, csw(wire.tag, signature=b"SBSU"))
        return None

    attach(stick()).wire.intercept = corrupt
    assert cli("capacity").failed(97, "signature")


def test_a_stall_that_is_not_allowed(cli: Cli, attach: Attached) -> None:
    attach(stick()).wire.intercept = lambda wire, endpoint, buffer: (Code.PIPE, 0) if wire.opcode == 0x12 else None
    assert cli("inquiry").failed(35)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "nosuch"),
        (["reed"], "No such command 'reed'; did you mean read? run `scsiusb --help`"),
        (["virtual", "serv"], "No such command 'serv'; did you mean serve? run `scsiusb virtual --help`"),
        (["read", "--block", "x"], "did you mean --blocks?"),
        (["--nosuch"], "--nosuch"),
        (["capacity", "--lbn", "1"], "did you mean --lun"),
        (["inquiry", "1-1", "extra"], "extra"),
        (["completion", "tcsh"], "tcsh"),
        (["completion"], "bash"),
        (["inquiry", "--lun"], "--lun"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(cli: Cli, words: list[str], said: str) -> None:
    ended = cli(*words)
    assert ended.failed(1, said, "--help`")
    assert ended.err.count("did you mean") <= 1


@pytest.mark.parametrize("number", sorted(failure.REMEDIES))
def test_each_error_of_the_operating_system_has_its_remedy(number: int) -> None:
    found = failure_of(OSError(number, "What the system says", "name"))
    assert found.status == 15
    assert found.line == f"scsiusb: error: name: What the system says; {failure.REMEDIES[number]}"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (OSError(9999, None), 15, "error 9999; run it again"),
        (OSError(errno.EIO, "I/O error", b"by\xfftes"), 15, "by\N{REPLACEMENT CHARACTER}tes: I/O error"),
        (OSError("the medium was closed"), 15, "the medium was closed; "),
        (OSError(), 15, "OSError; "),
        (click.FileError("name", "it is odd"), 15, "it is odd"),
        (click.ClickException("It is odd."), 15, "It is odd; "),
        (click.UsageError("It is odd."), 1, "It is odd; run `scsiusb --help`"),
        (ValueError("two\nlines\x1b"), 1, "two lines\N{REPLACEMENT CHARACTER}; "),
        (RuntimeError("a fault"), 99, "RuntimeError: a fault; report this"),
        (KeyboardInterrupt(), 130, "interrupted; "),
        (failure.Terminated(signal.SIGTERM), 143, "ended by SIGTERM; "),
    ],
)
def test_the_error_line_of_an_exception(error: BaseException, status: int, line: str) -> None:
    found = failure_of(error)
    assert found.status == status
    assert line in found.line
    assert found.line.startswith("scsiusb: error: ")


def test_an_error_without_a_remedy_gets_a_general_one() -> None:
    from scsiusb.scsi.sense import Sense

    error = CheckCondition("it failed", Sense(9, 0, 0))
    assert failure_of(error).line.endswith("it failed; run it again with -vv for details")


def test_a_bug_shows_its_traceback_only_with_vv(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*words: object, **options: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(session, "open_disk", fault)
    assert cli("inquiry").failed(99, "RuntimeError: a fault", "-vv")
    ended = cli("inquiry", "-vv")
    assert ended.status == 99
    assert "scsiusb: debug: traceback\nTraceback" in ended.err


@pytest.fixture
def not_ignored() -> Iterator[None]:
    """No signal is ignored, as SIGHUP is under nohup; the program leaves such signals ignored."""
    numbers = [getattr(signal, name) for name in process.ENDING if hasattr(signal, name)]
    before = {number: signal.signal(number, process.DEFAULT[number == signal.SIGINT]) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("not_ignored")
@pytest.mark.parametrize("name", [name for name in process.ENDING if hasattr(signal, name)])
def test_a_signal_releases_the_device(cli: Cli, attach: Attached, tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)

    def strike(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        """Once: Python reports a second one on stderr if it comes just while the first one's handler ignores it."""
        if wire.opcode == 0x28 and not struck:
            struck.append(True)
            signal.raise_signal(number)
        return None

    struck: list[bool] = []
    bus, handler = attach(stick()), signal.getsignal(number)
    bus.wire.intercept = strike
    assert cli("read", "-o", tmp_path / "image").failed(128 + number)
    assert bus.wire.log[-2:] == ["in", "in"], "the running command was completed"
    assert signal.getsignal(number) is handler
    bus.wire.intercept = None
    assert cli("read").status == 0


@pytest.mark.usefixtures("not_ignored")
def test_a_second_ctrl_c_does_not_stop_the_release(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel driver must be bound again, even if the user presses Ctrl-C several times."""

    def strike(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if wire.opcode == 0x28 and not first:
            first.append(True)
            signal.raise_signal(signal.SIGINT)
        return None

    first: list[bool] = []
    release = VirtualHandle.release

    def struck(handle: VirtualHandle, interface: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        release(handle, interface)

    monkeypatch.setattr(VirtualHandle, "release", struck)
    attach(stick()).wire.intercept = strike
    assert cli("read").failed(130, "interrupted")


def test_signals_that_the_caller_ignores_stay_ignored(cli: Cli, attach: Attached) -> None:
    attach(stick())
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with process.unwinding_signals():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_run_works_outside_the_main_thread(cli: Cli, attach: Attached) -> None:
    """Python can set signal handlers only in the main thread."""
    from concurrent.futures import ThreadPoolExecutor

    attach(stick())
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli, "inquiry").result().status == 0


def test_ctrl_c_at_the_question(screen: Cli, attach: Attached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
            raise KeyboardInterrupt

    path = tmp_path / "block"
    path.write_bytes(bytes(512))
    bus = attach(stick())
    monkeypatch.setattr(sys, "stdin", Interrupting())
    ended = screen("write", "--lba", "0", "-i", path)
    assert ended.status == 130
    assert ended.err.splitlines()[1].startswith("scsiusb: error: interrupted; ")
    assert "cbw 2a" not in bus.wire.log


class Broken(io.StringIO):
    """A stream that cannot be written."""

    def write(self, text: str, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stderr_that_cannot_be_written_does_not_change_the_status(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(stick())
    monkeypatch.setattr(sys, "stderr", Broken())
    assert cli("eject").status == 0
    assert cli("inquiry", "9-9").status == 15


def test_a_stdout_that_cannot_be_written(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(stick())
    monkeypatch.setattr(sys, "stdout", Broken())
    for words in (["inquiry"], ["list", "--json"], ["--help"], ["raw", "--help"], ["completion", "fish"]):
        assert cli(*words).failed(15, "output: No space left on device" if "--help" in words else "stdout: No space")


def test_a_reader_that_has_gone_is_not_reported(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    attach(stick())
    monkeypatch.setattr(sys, "stdout", Gone())
    ended = cli("inquiry")
    assert (ended.status, ended.err) == (141, "")


class ClosedOnWindows(io.StringIO):
    """A stream to a pipe whose reader has gone, as Windows reports it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def write(self, text: str, /) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    def fileno(self) -> int:
        return self._descriptor


@pytest.mark.parametrize(
    "words",
    [["inquiry"], ["list", "--json"], ["--help"], ["raw", "--help"], ["completion", "powershell"]],
    ids=" ".join,
)
def test_a_reader_that_has_gone_is_not_reported_on_windows(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    attach(stick())
    monkeypatch.setattr(output, "ON_WINDOWS", True)
    reader, writer = os.pipe()
    try:
        monkeypatch.setattr(sys, "stdout", ClosedOnWindows(writer))
        ended = cli(*words)
    finally:
        os.close(reader)
        os.close(writer)
    assert (ended.status, ended.err) == (141, "")


def test_data_for_a_reader_that_has_gone_end_it_quietly_on_windows(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(descriptor: int, data: bytes | memoryview) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    attach(stick())
    monkeypatch.setattr(output, "ON_WINDOWS", True)
    monkeypatch.setattr(output, "write_all", closed)
    monkeypatch.setattr("scsiusb.cli.files.write_all", closed)
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        for words in (["read"], ["read", "-o", "-"], ["raw", "12 00 00 00 24 00", "--in", "36"]):
            ended = cli(*words)
            assert (ended.status, ended.err) == (141, "")
        monkeypatch.undo()


@pytest.mark.parametrize("is_windows", [True, False])
def test_another_invalid_argument_is_reported(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_windows: bool
) -> None:
    """EINVAL of a file that is no pipe; and of a pipe on another system."""
    attach(stick())
    monkeypatch.setattr(output, "ON_WINDOWS", is_windows)
    reader, writer = os.pipe()
    with (tmp_path / "out").open("w") as file, os.fdopen(reader), os.fdopen(writer, "w"):
        monkeypatch.setattr(sys, "stdout", ClosedOnWindows(file.fileno() if is_windows else writer))
        assert cli("inquiry").failed(15, "stdout: Invalid argument; use a regular file")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="needs a signal to stand in")
def test_sigbreak_ends_a_command_as_sigterm_does(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Windows: Ctrl-Break, or a console that is closed. Another signal stands in."""
    number = getattr(signal, "SIGUSR2")  # noqa: B009 - mypy knows it on POSIX only
    monkeypatch.setattr(signal, "SIGBREAK", number, raising=False)

    def strike(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if wire.opcode == 0x28 and signal.getsignal(number) not in (signal.SIG_IGN, signal.SIG_DFL):
            signal.raise_signal(number)
        return None

    attach(stick()).wire.intercept = strike
    assert cli("read").failed(128 + number, "ended by")
    assert signal.getsignal(number) is signal.SIG_DFL


def test_options_of_a_virtual_stick(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "stick.img"
    path.write_bytes(bytes(8192))
    assert cli("capacity", f"virtual:{path}?block-size=4096", "--json").json["blocks"] == 2
    assert cli("read", f"virtual:{path}?fault=sense=3/11/00,opcode=28,times=always").failed(3, "Unrecovered read error")
    assert cli("capacity", f"virtual:{path}?block-size=3000").failed(1, "8192 bytes", f"truncate -s 9000 {path}`")
    assert cli("capacity", "virtual:?lun=2").failed(1, "virtual:?lun=2: unknown option 'lun'; did you mean luns?")
    assert cli("quirks", "virtual:?vid=0781&pid=5581").status == 0
    assert cli("read", f"virtual:{path}?luns=2", "-o", path).failed(1, "is the device itself")


@pytest.mark.skipif(sys.platform == "win32", reason="has another name there")
def test_a_special_file_as_a_virtual_stick_cannot_be_made_longer(cli: Cli) -> None:
    ended = cli("capacity", "virtual:/dev/null")
    assert ended.failed(1, "0 bytes are not")
    assert "truncate" not in ended.line


def test_an_error_under_json_is_one_object_on_stderr(cli: Cli, attach: Attached) -> None:
    attach(stick())
    ended = cli("--json", "read", "--lba", "0", "--blocks", "9999")
    assert json.loads(ended.err) == {
        "error": {
            "type": "OutOfRange",
            "message": "9999 blocks at LBA 0: beyond the medium's 2048 blocks",
            "remedy": "the last block is 2047",
            "status": 22,
            "sense": None,
            "lba": None,
        }
    }
    assert (ended.status, ended.out) == (22, b"")
    for words in (["read", "--lba", "x"], ["read", "--lbb", "1"], ["reed"], ["watch", "foo"], ["inquiry", "9-9"]):
        assert json.loads(cli(*words, "--json").err)["error"]["remedy"], "also where the options cannot be parsed"


def test_the_error_of_a_bad_block_has_its_lba_and_sense(cli: Cli) -> None:
    ended = cli("read", "virtual:?fault=sense=3/11/00,opcode=28,lba=5,times=always", "--blocks", "8", "--json")
    error = json.loads(ended.err)["error"]
    assert (error["type"], error["status"], error["sense"]["asc"]) == ("MediumError", 3, 0x11)


def test_words_that_are_no_device(cli: Cli, attach: Attached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(stick())
    (tmp_path / "s.img").write_bytes(bytes(512))
    monkeypatch.chdir(tmp_path)
    assert cli("inquiry", "s.img").failed(15, "'s.img': ", "did you mean virtual:s.img?")
    assert cli("inquiry", "foo").failed(15, "'foo': ", "/dev/sdX or virtual:FILE")
    for words in ("foo", "s.img", "virtual:", "/dev/sda"):
        assert cli("watch", words).failed(1, "is not a device that can be attached or detached")
