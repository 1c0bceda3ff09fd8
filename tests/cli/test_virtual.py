"""virtual serve: options, output and exit status."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from scsiusb.cli.commands import virtual
from scsiusb.cli.failure import Terminated
from scsiusb.virtual import Cached, Fake, Flawed, Medium
from scsiusb.virtual.device.function import Stall
from scsiusb.virtual.target.flawed import Wrapper
from scsiusb.virtual.usbip import server as usbip
from tests.cli.conftest import Cli, CliResult
from tests.cli.test_process import PROGRAM, enable_sigint, on_posix
from tests.sticks import PATIENCE

Use = Callable[[usbip.Server], object]


@pytest.fixture
def serve(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CliResult]:
    """Run `virtual serve` on a free port, call `use` with the server, then raise `end`."""

    def call(*words: object, use: Use = lambda server: None, end: BaseException | None = None) -> CliResult:
        def join(server: usbip.Server, timeout: float | None = None) -> bool:
            if timeout is not None:
                use(server)
                raise end or Terminated(signal.SIGTERM)
            return original(server, timeout)

        original = usbip.Server.join
        with monkeypatch.context() as patch:
            patch.setattr(usbip.Server, "join", join)
            return cli("virtual", "serve", "--port", 0, *words)

    return call


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "stick.img"
    path.write_bytes(bytes(1 << 16))
    return path


def attach(port: int) -> tuple[socket.socket, bytes]:
    """Return the connection and the device record (Linux Documentation/usb/usbip_protocol.rst)."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    connection.sendall(struct.pack(">HHI32s", 0x0111, 0x8003, 0, b"1-1"))
    with connection.makefile("rb") as file:
        assert file.read(8) == struct.pack(">HHI", 0x0111, 3, 0)
        return connection, file.read(312)


def test_one_line_says_how_to_attach_it(serve: Callable[..., CliResult], image: Path) -> None:
    ports = []
    ended = serve(image, use=lambda server: ports.append(server.port))
    assert ended.text == (
        f"{image} is served on 127.0.0.1, port {ports[0]}; "
        f"attach it with: usbip --tcp-port {ports[0]} attach -r 127.0.0.1 -b 1-1\n"
    )
    assert (ended.status, ended.err) == (0, "")


def test_the_line_as_json(serve: Callable[..., CliResult], image: Path) -> None:
    ports = []
    ended = serve(image, "--json", use=lambda server: ports.append(server.port))
    assert ended.json == {"host": "127.0.0.1", "port": ports[0], "busid": "1-1"}
    assert ended.out.count(b"\n") == 1


@pytest.mark.parametrize(
    ("end", "status"),
    [(Terminated(signal.SIGTERM), 0), (KeyboardInterrupt(), 130), (Terminated(1), 129)],
    ids=["SIGTERM", "Ctrl-C", "SIGHUP"],
)
def test_how_it_ends(serve: Callable[..., CliResult], image: Path, end: BaseException, status: int) -> None:
    ended = serve(image, end=end)
    assert (ended.status, ended.err) == (status, "")


def test_the_options_make_the_stick(serve: Callable[..., CliResult], image: Path) -> None:
    def use(server: usbip.Server) -> None:
        connection, record = attach(server.port)
        connection.close()
        assert struct.unpack_from(">IHH", record, 296) == (5, 0x0781, 0x5572)
        unit = server.stick.units[0]
        assert (unit.removable, unit.is_write_protected) == (False, True)
        assert unit.medium is not None
        assert (unit.medium.blocks, unit.medium.block_size) == (16, 4096)
        assert server.stick.identity.serial == "ABC"

    words = ["--vid", "0x0781", "--pid", "5572", "--serial", "ABC", "--speed", "super"]
    words += ["--block-size", "4096", "--read-only", "--no-removable"]
    assert serve(image, *words, use=use).status == 0


def test_faults_reach_the_stick(serve: Callable[..., CliResult], image: Path) -> None:
    def use(server: usbip.Server) -> None:
        server.stick.configure(1)
        assert server.stick.control(bytes.fromhex("a1fe000000000100")) == b"\x07"
        with pytest.raises(Stall):
            server.stick.control(bytes.fromhex("21ff000000000000"))

    assert serve(image, "--fault", "reset-stalls", "--fault", "max-lun=7", use=use).status == 0


def test_a_file_can_be_created(serve: Callable[..., CliResult], tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    assert serve(path, "--create", "64M").status == 0
    assert path.stat().st_size == 64 << 20
    assert serve(path, "--create", "64M").failed(15, str(path), "File exists")
    assert path.stat().st_size == 64 << 20


def test_sigbreak_ends_it_as_sigterm_does(
    serve: Callable[..., CliResult], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serve(image, end=Terminated(21)).status == 149
    monkeypatch.setattr(signal, "SIGBREAK", 21, raising=False)
    assert serve(image, end=Terminated(21)).status == 0


class Full(io.FileIO):
    """A file on a disk without room."""

    def truncate(self, size: int | None = None, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_new_file_that_has_no_room_is_closed_and_then_removed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows removes no file that is open."""
    path, opened = tmp_path / "new.img", list[Full]()

    def open_file(place: Path, mode: str) -> Full:
        assert mode == "xb"
        opened.append(Full(place, "x"))
        return opened[0]

    def unlink(place: Path, missing_ok: bool = False) -> None:
        assert opened[0].closed
        os.unlink(place)

    monkeypatch.setattr(Path, "open", open_file)
    monkeypatch.setattr(Path, "unlink", unlink)
    assert cli("virtual", "serve", path, "--create", "1M").failed(15, f"{path}: No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_removed_if_it_cannot_be_served(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    assert cli("virtual", "serve", path, "--create", "1000").failed(1, str(path), "1000 bytes")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli("virtual", "serve", path, "--create", "1M", "--port", port).failed(
            15, f"127.0.0.1:{port}: Address already in use; "
        )
    assert list(tmp_path.iterdir()) == []


def test_invalid_arguments_are_refused(cli: Cli, image: Path, tmp_path: Path) -> None:
    def refused(status: int, *words: object) -> Callable[..., bool]:
        return lambda *said: cli("virtual", "serve", *words).failed(status, *said)

    assert refused(15, tmp_path / "none")("none: No such file")
    assert refused(1, image, "--block-size", 1000)("multiple of the block size")
    assert refused(1, image, "--port", 65536)("65536")
    assert refused(1, image, "--host", "no.such.host.invalid")("no.such.host.invalid")
    assert refused(1, image, "--create", "64X")("64X", "such as 64M")
    assert refused(1, image, "--vid", "12345")("12345", "four hex digits")
    assert refused(1, image, "--serial", "x" * 127)("126 characters")
    assert refused(1, image, "--fault", "stal")("'stal'", "did you mean stall?")
    assert refused(1, image, "--fault", "stall=x")("'stall=x': stall takes a number of bytes, not 'x'")
    assert refused(1)("FILE")
    assert cli("virtual", "--nosuch").failed(1, "--nosuch", "scsiusb virtual --help")


def test_an_address_that_other_hosts_reach_gives_a_warning(serve: Callable[..., CliResult], image: Path) -> None:
    ended = serve(image, "--host", "0.0.0.0")
    assert ended.status == 0
    assert ended.err.startswith("scsiusb: warning: any host that reaches 0.0.0.0 can read and write ")
    assert ended.err.count("\n") == 1
    assert ended.text.endswith(" attach -r ADDRESS -b 1-1, with an address of this machine\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--trace", "x.pcapng"], "-v"), (["--timeout", "1"], "the command that opens"), (["--quirks", "1:1:r"], "opens")],
)
def test_options_for_the_client_are_refused(cli: Cli, image: Path, words: list[str], said: str) -> None:
    assert cli("virtual", "serve", image, *words).failed(1, words[0], said)
    assert cli(*words, "virtual", "serve", image).failed(1, words[0], said)


def test_a_file_of_invalid_size_has_a_remedy(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(5000))
    assert cli("virtual", "serve", path, "--block-size", 4096).failed(1, "make it 8192 bytes long", "truncate -s 8192")


def test_the_medium_can_be_a_fake_with_a_cache_and_wrong_blocks(
    serve: Callable[..., CliResult], tmp_path: Path
) -> None:
    media: list[Medium | None] = []
    words = ["--fake", "limbo:8M", "--cache", "1M", "--bad", "7,100-200", "--dropped", "5", "--flipped", "6"]
    ended = serve(
        tmp_path / "a.img",
        "--create",
        "64M",
        *words,
        use=lambda server: media.extend(unit.medium for unit in server.stick.units),
    )
    assert ended.status == 0
    (medium,) = media
    kinds = []
    while isinstance(medium, Wrapper):
        kinds.append(type(medium))
        if isinstance(medium, Fake):
            assert (medium.kind, medium.usable, medium.blocks) == ("limbo", 8 << 11, 64 << 11)
        medium = medium.inner
    assert kinds == [Cached, Flawed, Flawed, Flawed, Fake]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fake", "limb"], "unknown kind 'limb'"),
        (["--fake", "limbo:2M"], "4096 usable blocks are not possible"),
        (["--bad", "5-4"], "'5-4' is neither a block nor a range"),
        (["--cache", "much"], "'much' is not a size"),
    ],
)
def test_wrong_options_of_the_medium_are_refused(cli: Cli, tmp_path: Path, words: list[str], said: str) -> None:
    assert cli("virtual", "serve", tmp_path / "a.img", "--create", "1M", *words).failed(1, said)
    assert list(tmp_path.iterdir()) == []


def test_the_names_of_faults_are_completed() -> None:
    option = next(each for each in virtual.serve.params if each.name == "faults")
    items = option.shell_complete(click.Context(virtual.serve), "reset-")
    assert [item.value for item in items] == ["reset-stalls", "reset-hangs", "reset-ignored"]


def test_a_server_that_ends_without_a_signal_is_an_error(
    cli: Cli, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbip.Server, "_run", lambda server: server._shut())
    monkeypatch.setattr(virtual, "_announce", lambda path, server: None)
    assert cli("virtual", "serve", image, "--port", 0).failed(99, "is not served any more")


def test_help_lists_the_faults(cli: Cli) -> None:
    ended = cli("virtual", "serve", "--help")
    assert "usbip attach -r 127.0.0.1 -b 1-1" in ended.text
    for words in ("stall[=N]", "descriptor=NAME", "reset-hangs"):
        assert words in ended.text
    assert max(map(len, ended.text.splitlines())) < 80


@on_posix
def test_the_program_logs_clients_and_ends_with_sigterm(image: Path) -> None:
    command = [*PROGRAM, "virtual", "serve", str(image), "--port", "0", "--json", "-v"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=enable_sigint
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        connection, _ = attach(json.loads(running.stdout.readline())["port"])
        # The server logs this after its reply, so wait for it before SIGTERM.
        assert running.stderr.readline() == "scsiusb: info: 127.0.0.1 attached the stick\n"
        running.terminate()
        assert connection.recv(1) == b""
        connection.close()
        out, _ = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out) == (0, "")
