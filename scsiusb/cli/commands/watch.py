"""The watch command: what comes and goes, as JSON lines for scripts or as a table that lives on the terminal."""

from __future__ import annotations

import json
import select
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import click

from scsiusb.cli import status
from scsiusb.cli.device import complete_attached
from scsiusb.cli.failure import Terminated
from scsiusb.cli.options import global_options, quoted, settings
from scsiusb.cli.output import show
from scsiusb.finding import VIRTUAL
from scsiusb.leases.lease import holder
from scsiusb.leases.orphans import recover
from scsiusb.manager.events import ATTACHED, Event
from scsiusb.opening import Manager

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

TURN: Final = 1.0  # seconds between two looks at what nobody tells: who reads, who holds a device
LAST_EVENTS: Final = 8
SMALL: Final = 8  # rows of the screen that are neither a device nor an event
WIDE: Final = ("address", "vid:pid", "serial", "device", "speed", "used by", "since")
NARROW: Final = ("address", "device", "used by")
WIDE_ENOUGH: Final = 100
ELASTIC: Final = ("serial", "device", "used by")
EVENT_COLUMNS: Final = ("time", "event", "address", "device")


class View(Protocol):
    """Where events go."""

    def add(self, event: Event) -> None: ...

    def idle(self) -> None:
        """Called every now and then while nothing happens, and after what did."""


@click.command("watch", short_help="Watch devices come and go.")
@click.argument("device", required=False, shell_complete=complete_attached)
@global_options
def watch_command(device: str | None) -> int:
    """Watch devices come and go; first come those already there. Ctrl-C ends it.

    On a terminal a table of what is attached and what happened last; elsewhere,
    and with --json, one line of JSON for each event. With DEVICE only those that
    it names.

    \b
    Examples:
      scsiusb watch
      scsiusb watch --json serial=0123456789AB
      scsiusb watch | jq -r 'select(.event == "attached").address'
    """
    if device is not None and (not device.strip() or device.startswith(VIRTUAL)):
        raise click.UsageError(f"{quoted(device)} is no device that could come and go")
    recover()
    try:
        with Manager() as manager, _view() as view:
            _follow(manager, device, view)
    except KeyboardInterrupt:
        return status.INTERRUPTED  # how watching ends: no news
    except Terminated as error:
        return status.SIGNALLED + error.number


def _follow(manager: Manager, device: str | None, view: View) -> NoReturn:
    events = manager.events(timeout=TURN, device=device)
    while True:
        for event in events:
            view.add(event)
        view.idle()


@contextmanager
def _view() -> Iterator[View]:
    if settings().json or not sys.stdout.isatty():
        yield Lines()
        return
    from rich.console import Console

    console = Console()
    if console.is_dumb_terminal:  # it can move no cursor
        yield Words()
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        yield Board(live)


def is_unread(descriptor: int) -> bool:
    """Has the reader of a pipe gone? Where the system does not tell, the next write will."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))


class Lines:
    """A line of JSON for each event, at once."""

    def add(self, event: Event) -> None:
        show(json.dumps(event_record(event)))

    def idle(self) -> None:
        """`scsiusb watch | head -1` ends with head, not with the event after it."""
        if is_unread(sys.stdout.fileno()):
            raise BrokenPipeError


def event_record(event: Event) -> dict[str, Any]:
    info = event.device
    return {
        "event": event.kind,
        "address": info.address,
        "vid": f"{info.vid:04x}",
        "pid": f"{info.pid:04x}",
        "serial": info.serial,
        "time": event.time.astimezone().isoformat(timespec="milliseconds"),
    }


class Words:
    """A line for people for each event."""

    def add(self, event: Event) -> None:
        show("  ".join(_told(event)))

    def idle(self) -> None:
        """A line once written stays."""


def _told(event: Event) -> tuple[str, str, str, str]:
    info = event.device
    name = " ".join(filter(None, (info.manufacturer, info.product))) or f"{info.vid:04x}:{info.pid:04x}"
    return _clock(event), event.kind, info.address, name


def _clock(event: Event) -> str:
    return f"{event.time.astimezone():%H:%M:%S}"


class Board:
    """What is attached now, and the last events."""

    def __init__(self, live: Any) -> None:
        self._live = live
        self._attached: dict[str, Event] = {}
        self._events: deque[Event] = deque(maxlen=LAST_EVENTS)
        self._shown: object = None

    def add(self, event: Event) -> None:
        self._events.append(event)
        if event.kind == ATTACHED:
            self._attached[event.device.name] = event
        else:
            self._attached.pop(event.device.name, None)
        self.idle()

    def idle(self) -> None:
        """Draws what has changed, so that nothing flickers."""
        size = self._live.console.size
        now = [_row(event) for _, event in sorted(self._attached.items())]
        room = max(1, size.height - SMALL - len(now))
        before = [_told(event) for event in tuple(self._events)[-room:]]
        if self._shown != (size, now, before):
            self._shown = size, now, before
            self._live.update(_picture(size.width, now, before), refresh=True)


def _row(event: Event) -> dict[str, str]:
    info, (clock, _, address, name) = event.device, _told(event)
    record = holder(info)
    return {
        "address": address,
        "vid:pid": f"{info.vid:04x}:{info.pid:04x}",
        "serial": info.serial or "-",
        "device": name,
        "speed": info.speed,
        "used by": f"pid {record.pid} {record.command}" if record else info.driver or "-",
        "since": clock,
    }


def _picture(width: int, now: Sequence[dict[str, str]], before: Sequence[Sequence[str]]) -> Group:
    from rich.console import Group

    columns = WIDE if width >= WIDE_ENOUGH else NARROW
    attached = _table(columns, [[row[column] for column in columns] for row in now])
    attached.caption = None if now else "no mass-storage device is attached"
    events = _table(EVENT_COLUMNS, before)
    events.caption = "Ctrl-C ends this"
    return Group(attached, "", events)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A line for each row; what may be long is cut where the screen is too narrow."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, caption_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=column not in ELASTIC)
    for row in rows:
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    return table
