"""watch: each event is shown once and immediately; the end is silent."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scsiusb.cli.commands import watch
from scsiusb.cli.failure import Terminated
from scsiusb.manager.events import ATTACHED, DETACHED, Event
from scsiusb.opening import Manager
from scsiusb.usb.interface import find
from scsiusb.virtual import Bus, Identity, Stick
from tests.cli import test_process
from tests.cli.conftest import Attached, Cli
from tests.cli.test_manage import record
from tests.cli.test_process import Terminal, enable_sigint, on_posix, wait_for
from tests.sticks import PATIENCE, InterceptedBus, stick

WHEN = datetime(2026, 11, 22, 16, 11, 0, 123456, timezone.utc)


class Hand:
    """Performs actions on the bus, each after a number of events was shown; then raises KeyboardInterrupt."""

    def __init__(self, bus: InterceptedBus, patch: pytest.MonkeyPatch) -> None:
        self.bus = bus
        self.steps: deque[tuple[int, Callable[[], object]]] = deque()
        self.shown = 0
        self.end: BaseException = KeyboardInterrupt()
        patch.setattr(watch, "POLL_INTERVAL", 0.01)
        patch.setattr(watch, "Manager", lambda: Manager(bus))
        for view in (watch.JsonLines, watch.TextLines):
            patch.setattr(view, "add", self._counting(view.add))
            patch.setattr(view, "idle", lambda view: self._go_on())

    def after(self, events: int, action: Callable[[], object]) -> None:
        self.steps.append((events, action))

    def until(self, events: int) -> None:
        self.steps.append((events, self._stop))

    def _stop(self) -> None:
        raise self.end

    def _counting(self, add: Callable[[Any, Event], None]) -> Callable[[Any, Event], None]:
        def counted(view: Any, event: Event) -> None:
            add(view, event)
            self.shown += 1

        return counted

    def _go_on(self) -> None:
        if self.shown >= self.steps[0][0]:
            self.steps.popleft()[1]()


@pytest.fixture
def hand(attach: Attached, monkeypatch: pytest.MonkeyPatch) -> Hand:
    return Hand(attach.bus, monkeypatch)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_attached_devices_come_first_then_events(cli: Cli, attach: Attached, hand: Hand) -> None:
    first, second = stick(), Stick.formatted(identity=Identity(vid=0x1, pid=0xAB, serial=None))
    attach(first)
    hand.after(1, lambda: hand.bus.plug(second))
    hand.after(2, lambda: hand.bus.unplug(first))
    hand.until(3)
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    ended = cli("watch")
    assert (ended.status, ended.err) == (130, "")
    rows = lines(ended.text)
    assert [(row["event"], row["address"]) for row in rows] == [
        ("attached", "1-1"),
        ("attached", "1-2"),
        ("detached", "1-1"),
    ]
    assert list(rows[0]) == ["event", "address", "vid", "pid", "serial", "time"]
    assert (rows[0]["vid"], rows[0]["pid"], rows[0]["serial"]) == ("1209", "0001", "0123456789AB")
    assert (rows[1]["vid"], rows[1]["pid"], rows[1]["serial"]) == ("0001", "00ab", None)
    times = [datetime.fromisoformat(row["time"]) for row in rows]
    assert all(time.tzinfo is not None for time in times)
    assert before <= times[0] <= times[1] <= times[2] <= datetime.now(timezone.utc)


@pytest.mark.parametrize("words", ["1-2", "serial=B", "1209:00ab"])
def test_only_events_of_the_given_device(cli: Cli, attach: Attached, hand: Hand, words: str) -> None:
    other, meant = stick(), Stick.formatted(identity=Identity(pid=0xAB, serial="B"))
    attach(other, meant)
    hand.after(1, lambda: hand.bus.unplug(other))
    hand.after(1, lambda: hand.bus.unplug(meant))
    hand.until(2)
    rows = lines(cli("watch", words).text)
    assert [(row["event"], row["address"]) for row in rows] == [("attached", "1-2"), ("detached", "1-2")]


@pytest.mark.parametrize("words", ["", " ", "virtual:", "virtual:x"])
def test_a_device_that_cannot_be_attached_is_refused(cli: Cli, hand: Hand, words: str) -> None:
    assert cli("watch", words).failed(1, "is not a device that can be attached or detached")


def test_sigterm_ends_it_silently(cli: Cli, attach: Attached, hand: Hand) -> None:
    attach(stick())
    hand.until(1)
    hand.end = Terminated(signal.SIGTERM)
    ended = cli("watch")
    assert (ended.status, ended.err) == (143, "")


def test_json_on_a_terminal_is_json(screen: Cli, attach: Attached, hand: Hand) -> None:
    attach(stick())
    hand.until(1)
    assert lines(screen("watch", "--json").text)[0]["address"] == "1-1"


def test_a_dumb_terminal_gets_a_line_for_each_event(
    screen: Cli, attach: Attached, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    attach(stick(), Stick.formatted(identity=Identity(manufacturer=None, product=None)))
    hand.until(2)
    first, second = screen("watch").text.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  attached  1-1  scsiusb Virtual Stick", first)
    assert second.endswith("  attached  1-2  1209:0001")


def test_the_time_has_an_offset_and_milliseconds() -> None:
    info = find(Bus(stick()))[0]
    time = watch.event_record(Event(ATTACHED, info, 1, WHEN))["time"]
    assert datetime.fromisoformat(time) == WHEN.replace(microsecond=123000)
    assert re.fullmatch(r"2026-11-2\dT\d\d:\d\d:00\.123[+-]\d\d:\d\d", time)


# --- the table ------------------------------------------------------------------------------------


class Screen:
    """A terminal of rich, in memory."""

    def __init__(self, width: int = 120, height: int = 40) -> None:
        from rich.console import Console

        self.console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, no_color=True)
        self.text = ""
        self.count = 0

    def update(self, picture: Any, *, refresh: bool) -> None:
        assert refresh
        self.count += 1
        with self.console.capture() as capture:
            self.console.print(picture)
        self.text = re.sub(r"\x1b\[[0-9;]*m", "", capture.get())


def test_the_table_shows_attached_devices_and_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "holder", lambda info: None)
    first, second = find(Bus(stick(), Stick.formatted(identity=Identity(product="[b]x[/b]"))))
    screen = Screen()
    table = watch.LiveTable(screen)
    table.idle()
    assert "no mass-storage device is attached" in screen.text
    table.add(Event(ATTACHED, first, 1, WHEN))
    table.add(Event(ATTACHED, second, 2, WHEN))
    assert re.search(r"1-1 .*1209:0001 .*0123456789AB .*Virtual Stick .*high .*usb-storage .*:11:00", screen.text)
    assert "[b]x[/b]" in screen.text, "device names are not markup"
    table.add(Event(DETACHED, first, 1, WHEN))
    assert len(re.findall(r"^1-1 ", screen.text, re.MULTILINE)) == 0
    assert re.search(r"detached +1-1", screen.text)
    monkeypatch.setattr(watch, "holder", lambda info: record(pid=77, command="python x.py"))
    table.idle()
    assert "pid 77 python x.py" in screen.text
    count = screen.count
    table.idle()
    assert screen.count == count, "an unchanged table is not drawn again"


def test_a_narrow_terminal_has_fewer_columns_and_still_a_line_for_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "holder", lambda info: record(command="x" * 200))
    screen = Screen(width=60)
    table = watch.LiveTable(screen)
    for info in find(Bus(stick(), stick())):
        table.add(Event(ATTACHED, info, 1, WHEN))
    assert len(re.findall(r"^1-[12] +scsiusb Virtual Stick +pid ", screen.text, re.MULTILINE)) == 2
    assert all(len(line) <= 60 for line in screen.text.splitlines())


@pytest.mark.parametrize(("height", "shown"), [(40, watch.LAST_EVENTS), (12, 3), (5, 1)])
def test_as_many_events_as_the_terminal_has_room_for(monkeypatch: pytest.MonkeyPatch, height: int, shown: int) -> None:
    monkeypatch.setattr(watch, "holder", lambda info: None)
    info = find(Bus(stick()))[0]
    screen = Screen(height=height)
    table = watch.LiveTable(screen)
    for number in range(21):
        table.add(Event(DETACHED if number % 2 else ATTACHED, info, number, WHEN))
    assert len(re.findall(r"(?:at|de)tached +1-1", screen.text)) == shown


# --- as a program ---------------------------------------------------------------------------------

PROGRAM_ON_A_BUS = """
import sys, threading
from scsiusb.cli.commands import watch
from scsiusb.cli.app import run
from scsiusb.opening import Manager
from scsiusb.virtual import Bus, Stick
bus, stick = Bus(), Stick.formatted()
bus.plug(stick)
watch.Manager = lambda: Manager(bus)
def follow():
    for line in sys.stdin:
        bus.unplug(stick) if "unplug" in line else bus.plug(stick)
threading.Thread(target=follow, daemon=True).start()
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the command of scsiusb with a virtual stick that stdin plugs and unplugs."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM_ON_A_BUS)
    monkeypatch.setattr(test_process, "PROGRAM", [sys.executable, str(path)])
    return [sys.executable, str(path)]


@on_posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_lines_are_written_at_once_and_signals_end_it(program: list[str], number: int, status: int) -> None:
    running = subprocess.Popen(
        [*program, "watch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=enable_sigint,
    )
    with running:
        assert running.stdout is not None
        assert running.stdin is not None
        assert json.loads(running.stdout.readline())["event"] == "attached"
        print("unplug", file=running.stdin, flush=True)
        assert json.loads(running.stdout.readline())["event"] == "detached"
        running.send_signal(number)
        out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out, err) == (status, "", "")


@pytest.mark.slow
@on_posix
def test_it_ends_with_its_reader_even_without_events(program: list[str], tmp_path: Path) -> None:
    """`scsiusb watch | head -1` must not wait for the next event."""
    status = tmp_path / "status"
    line = f"('{program[0]}' '{program[1]}' watch </dev/null; echo $? >{status}) | head -1"
    ended = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=PATIENCE)
    assert json.loads(ended.stdout)["event"] == "attached"
    assert ended.stderr == ""
    wait_for(lambda: status.exists() and status.read_text() == "141\n")


@on_posix
@pytest.mark.usefixtures("program")
def test_a_live_table_on_a_terminal() -> None:
    terminal = Terminal("watch", columns=120)
    terminal.until("Virtual Stick")
    terminal.type("unplug\n")
    terminal.until("detached")
    terminal.until("no mass-storage device")
    terminal.type("plug\n")
    terminal.until("1-1 ")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "error" not in terminal.screen
    assert "Traceback" not in terminal.screen
    assert terminal.screen.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


@on_posix
@pytest.mark.parametrize("is_gone", [True, False])
def test_is_unread_on_macos(monkeypatch: pytest.MonkeyPatch, is_gone: bool) -> None:
    """Its poll(2) reports a pipe without a reader by POLLHUP, and nothing if no event was asked for."""

    class Poll:
        def register(self, descriptor: int, events: int) -> None:
            self.events = events

        def poll(self, timeout: float) -> list[tuple[int, int]]:
            if not self.events & 4:  # POLLOUT
                return []
            return [(1, 4 | 16 if is_gone else 4)]  # POLLHUP is 16

    monkeypatch.setattr(select, "poll", Poll)
    assert watch.is_unread(1) is is_gone


def test_is_unread_without_poll_is_false(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    assert watch.is_unread(writer) is False
    os.close(reader)
    monkeypatch.delattr(select, "poll", raising=False)
    assert watch.is_unread(writer) is False
    os.close(writer)
