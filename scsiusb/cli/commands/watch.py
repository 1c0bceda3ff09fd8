"""The watch command: show devices that are attached and detached, as JSON lines or as a live table."""

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
from scsiusb.cli.failure import Refused, Terminated
from scsiusb.cli.options import global_options, quoted, settings
from scsiusb.cli.output import show
from scsiusb.finding import VIRTUAL, is_selector
from scsiusb.leases.lease import holder
from scsiusb.leases.orphans import recover
from scsiusb.manager.events import ATTACHED, Event
from scsiusb.opening import Manager
from scsiusb.usb.interface import NODE

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

POLL_INTERVAL: Final = 1.0  # seconds between polls of what has no events: the reader of stdout, leases
LAST_EVENTS: Final = 8
SMALL: Final = 8  # rows of the terminal that are neither a device nor an event
WIDE: Final = ("address", "vid:pid", "serial", "device", "speed", "used by", "since")
NARROW: Final = ("address", "device", "used by")
WIDE_ENOUGH: Final = 100
ELASTIC: Final = ("serial", "device", "used by")
EVENT_COLUMNS: Final = ("time", "event", "address", "device")


class View(Protocol):
    """Output of events."""

    def add(self, event: Event) -> None:
        """Show an event."""

    def idle(self) -> None:
        """Update the output; called periodically and after each event."""


@click.command("watch", short_help="Show devices being attached and detached.")
@click.argument("device", required=False, shell_complete=complete_attached)
@global_options
def watch_command(device: str | None) -> int:
    """Show devices being attached and detached, until Ctrl-C.

    Starts with the devices that are already attached. On a terminal, shows a
    table of the attached devices and the last events; otherwise, and with --json,
    one line of JSON for each event. With DEVICE, only events of that device.

    \b
    Examples:
      scsiusb watch
      scsiusb watch --json serial=0123456789AB
      scsiusb watch | jq -r 'select(.event == "attached").address'
    """
    if device is not None and (not is_selector(device) or device.startswith((VIRTUAL, NODE))):
        remedy = "give an address such as 2-1, VID:PID or serial=TEXT"
        raise Refused(f"{quoted(device)} is not a device that can be attached or detached", remedy)
    recover()
    try:
        with Manager() as manager, _view() as view:
            _follow(manager, device, view)
    except KeyboardInterrupt:
        return status.INTERRUPTED  # the normal way to end; no message
    except Terminated as error:
        return status.SIGNALLED + error.number


def _follow(manager: Manager, device: str | None, view: View) -> NoReturn:
    events = manager.events(timeout=POLL_INTERVAL, device=device)
    while True:
        for event in events:
            view.add(event)
        view.idle()


@contextmanager
def _view() -> Iterator[View]:
    if settings().json or not sys.stdout.isatty():
        yield JsonLines()
        return
    from rich.console import Console

    console = Console()
    if console.is_dumb_terminal:  # it cannot move the cursor
        yield TextLines()
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        yield LiveTable(live)


def is_unread(descriptor: int) -> bool:
    """Return whether the reader of a pipe has gone. Without poll(), return False; the next write will fail."""
    if sys.platform == "win32" or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)  # macOS reports the end only to those who ask for something
    ended = select.POLLERR | select.POLLHUP  # Linux reports the first, macOS the second
    return any(state & ended for _, state in poll.poll(0))


class JsonLines:
    """Prints a line of JSON for each event."""

    def add(self, event: Event) -> None:
        """See `View.add`."""
        show(json.dumps(event_record(event)))

    def idle(self) -> None:
        """Raise BrokenPipeError if the reader has gone: `watch | head -1` must end with head, not at the next event."""
        if is_unread(sys.stdout.fileno()):
            raise BrokenPipeError


def event_record(event: Event) -> dict[str, Any]:
    """Return an event as names and values for JSON."""
    info = event.device
    return {
        "event": event.kind,
        "address": info.address,
        "vid": f"{info.vid:04x}",
        "pid": f"{info.pid:04x}",
        "serial": info.serial,
        "time": event.time.astimezone().isoformat(timespec="milliseconds"),
    }


class TextLines:
    """Prints a line of text for each event."""

    def add(self, event: Event) -> None:
        """See `View.add`."""
        show("  ".join(_cells(event)))

    def idle(self) -> None:
        """Do nothing: lines are not updated."""


def _cells(event: Event) -> tuple[str, str, str, str]:
    info = event.device
    name = " ".join(filter(None, (info.manufacturer, info.product))) or f"{info.vid:04x}:{info.pid:04x}"
    return _clock(event), event.kind, info.address, name


def _clock(event: Event) -> str:
    return f"{event.time.astimezone():%H:%M:%S}"


class LiveTable:
    """A live table of the attached devices and the last events."""

    def __init__(self, live: Any) -> None:
        self._live = live
        self._attached: dict[str, Event] = {}
        self._events: deque[Event] = deque(maxlen=LAST_EVENTS)
        self._shown: object = None

    def add(self, event: Event) -> None:
        """See `View.add`."""
        self._events.append(event)
        if event.kind == ATTACHED:
            self._attached[event.device.name] = event
        else:
            self._attached.pop(event.device.name, None)
        self.idle()

    def idle(self) -> None:
        """Draw the table again if it has changed; drawing it each time would flicker."""
        size = self._live.console.size
        now = [_row(event) for _, event in sorted(self._attached.items())]
        room = max(1, size.height - SMALL - len(now))
        before = [_cells(event) for event in tuple(self._events)[-room:]]
        if self._shown != (size, now, before):
            self._shown = size, now, before
            self._live.update(_picture(size.width, now, before), refresh=True)


def _row(event: Event) -> dict[str, str]:
    info, (clock, _, address, name) = event.device, _cells(event)
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
    events.caption = "press Ctrl-C to end"
    return Group(attached, "", events)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table with a line for each row; long cells are truncated if the terminal is too narrow."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, caption_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=column not in ELASTIC)
    for row in rows:
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    return table
