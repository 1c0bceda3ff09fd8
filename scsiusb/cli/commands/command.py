"""The command `command`: sends any declared SCSI command, its fields by name, and shows the typed reply."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.base.dataclass import dataclass
from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.commands.erase import parse_pattern
from scsiusb.cli.device import complete_device, device_record, lun_option, name_of, opened
from scsiusb.cli.failure import Refused
from scsiusb.cli.files import STANDARD, read_whole, refuse_own_file, sink
from scsiusb.cli.options import global_options, quoted, settings, whole_number
from scsiusb.cli.output import counted, hex_dump, say, sense_record, show, show_json, show_record, show_table, size_text
from scsiusb.scsi import catalog
from scsiusb.scsi.command import Command
from scsiusb.scsi.effects import is_known_to_change
from scsiusb.scsi.pages.inquiry import device_type_text
from scsiusb.scsi.sense import Sense
from scsiusb.transport.base import Direction

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk

LARGEST_DATA: Final = 64 * 1024 * 1024
BLOCK_SIZE: Final = "block_size"  # a field that the medium gives, if it is left out
ANY_BLOCK_SIZE: Final = 512  # until the medium is known
NEXT_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[a-z])(?=[0-9])")
YES: Final = {"yes": True, "no": False}
HELP: Final = "see `scsiusb command --list`"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(whole_number, text.split(",")))


def _yes(text: str) -> bool:
    if text.lower() not in YES:
        raise ValueError(f"{quoted(text)} is neither yes nor no")
    return YES[text.lower()]


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise ValueError(f"{quoted(text)} is not a number of bytes in hex, such as 55aa") from error


PARSERS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {  # by the annotation of the field: its kind in words
    "int": ("N", whole_number),
    "bool": ("yes|no", _yes),
    "bytes": ("HEX", _bytes),
    "bytes | bytearray | memoryview": ("HEX", _bytes),
    "tuple[int, ...]": ("N,N", _numbers),
}


@dataclass(frozen=True)
class Named:
    """A declared command, and how it is called here."""

    kind: type[Command[Any]]

    @property
    def word(self) -> str:
        """The name: "verify-16", "report-zones"."""
        return NEXT_WORD.sub("-", self.kind.__name__).lower()

    @property
    def fields(self) -> dict[str, dataclasses.Field[Any]]:
        """The fields that can be given."""
        return {each.name: each for each in dataclasses.fields(self.kind)}  # type: ignore[arg-type]

    @property
    def data_field(self) -> str | None:
        """The field that has the data to send, if any."""
        return next((name for name, each in self.fields.items() if _words(each) == "HEX"), None)

    def parse(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the values of FIELD=VALUE. Raise UsageError."""
        values: dict[str, Any] = {}
        for word in words:
            name, mark, text = word.partition("=")
            name = name.replace("-", "_")
            if not mark or name not in self.fields or name in values:
                known = ", ".join(self.fields) or "none"
                raise click.UsageError(f"{quoted(word)} is not FIELD=VALUE, once for each; {self.word} has: {known}")
            try:
                values[name] = PARSERS[str(self.fields[name].type)][1](text)
            except ValueError as error:
                raise click.UsageError(f"{name}: {error}") from error
        return values

    def make(self, values: Mapping[str, Any], block_size: int) -> Command[Any]:
        """Return the command. Raise UsageError for fields that are missing, and for values that do not fit."""
        size = {BLOCK_SIZE: block_size} if BLOCK_SIZE in self.fields and _is_needed(self.fields[BLOCK_SIZE]) else {}
        given = {**size, **values}
        missing = [name for name, each in self.fields.items() if _is_needed(each) and name not in given]
        if missing:
            raise click.UsageError(f"{self.word} needs {', '.join(f'{name}=VALUE' for name in missing)}")
        command = self.kind(**given)
        try:
            command.cdb()
            sent = memoryview(command.payload).nbytes
        except (ValueError, OverflowError, struct.error) as error:
            raise click.UsageError(f"{self.word}: {error}") from error
        if max(command.length, sent) > LARGEST_DATA:
            raise click.UsageError(f"the data phase is limited to {size_text(LARGEST_DATA)}")
        return command


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _words(field: dataclasses.Field[Any]) -> str:
    return PARSERS[str(field.type)][0]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def all_named() -> dict[str, Named]:
    """Return the commands by their words, and by the standard's names, without case, spaces and signs."""
    found = [Named(each.kind) for each in reversed(catalog.declared())]  # of equal names, the first one counts
    return {**{_plain(each.kind.NAME): each for each in found}, **{_plain(each.word): each for each in found}}


@click.command("command", short_help="Send any declared SCSI command, with its fields by name.")
@click.argument("words", nargs=-1, metavar="[DEVICE] NAME [FIELD=VALUE]...", shell_complete=complete_device)
@lun_option
@click.option("--list", "is_list", is_flag=True, help="List the commands, or those with NAME in their name.")
@click.option("--out", "path", metavar="FILE", type=click.Path(), help="Send FILE as the data; - is stdin.")
@click.option("--data", metavar="HEX", callback=parse_pattern, help="Send these bytes as the data.")
@click.option("--save", metavar="FILE", type=click.Path(), help="Write the bytes received to FILE; - is stdout.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@global_options
def command_command(
    words: tuple[str, ...],
    lun: int | None,
    is_list: bool,
    path: str | None,
    data: bytes,
    save: str | None,
    yes: bool,
) -> None:
    """Send a SCSI command by its name, such as verify-16 or "VERIFY(16)", and show
    the reply.

    Numbers are decimal, or hex with 0x; flags are yes or no; bytes are in hex. The
    block size is that of the medium, if it is not given.

    Asks for confirmation, unless --yes is given, before it sends data, or a command
    that is known to change the medium or the device.

    \b
    Examples:
      scsiusb command --list zone
      scsiusb command 2-1 verify-16 lba=0 blocks=0x10000
      scsiusb command 2-1 report-zones options=1 --json
      scsiusb command 2-1 compare-and-write lba=8 blocks=1 --out two-blocks.bin
      scsiusb command 2-1 blank kind=1 immediate=yes --yes
    """
    if is_list:
        _list(words)
        return
    if save == STANDARD and settings().json:
        raise click.UsageError("--json and --save - would both write to stdout")
    device, named, values = _split(words)
    for each in (path, save):
        refuse_own_file(device, each)
    values |= _data(named, values, path, data)
    draft = named.make(values, ANY_BLOCK_SIZE)
    may_change = _may_change(draft)
    if may_change and not yes:
        require_terminal("the command")
    with ExitStack() as held:
        target = None if save is None else held.enter_context(sink(save))
        disk = held.enter_context(opened(device, lun))
        received: list[bytes] = []
        keeping = Named(_keeping(named.kind, received))
        command = keeping.make(values, disk.block_size if _asks_for_size(named, values) else ANY_BLOCK_SIZE)
        _check_type(disk, named.kind, command)
        if may_change and not yes:
            _confirm(disk, device, command)
        reply = disk.execute(command)
        device_of = device_record(disk)
        if target is not None:
            target.begin()
            target.write(b"".join(received[-1:]))
    _show(named, reply, save, device_of)


def _split(words: Sequence[str]) -> tuple[str | None, Named, dict[str, Any]]:
    """Return DEVICE, None if the first word is a command, the command, and its values. Raise UsageError."""
    known = all_named()
    at = 0 if words and _plain(words[0]) in known else 1
    if len(words) <= at:
        raise click.UsageError(f"there is no NAME of a command; {HELP}")
    named = known.get(_plain(words[at]))
    if named is None:
        near = get_close_matches(words[at].lower(), [each.word for each in known.values()], 1)
        raise click.UsageError(
            f"{quoted(words[at])} is not a declared command; {f'did you mean {near[0]}?' if near else HELP}"
        )
    return (words[0] if at else None), named, named.parse(words[at + 1 :])


def _data(named: Named, values: Mapping[str, Any], path: str | None, data: bytes) -> dict[str, bytes]:
    """Return the data to send as the value of its field. Raise UsageError."""
    if path is None and not data:
        return {}
    if path is not None and data:
        raise click.UsageError("--out and --data cannot be used together")
    name = named.data_field
    if name is None or name in values:
        raise click.UsageError(f"{named.word} has no data to send" if name is None else f"{name} is given twice")
    return {name: data if path is None else read_whole(path, LARGEST_DATA)}


def _asks_for_size(named: Named, values: Mapping[str, Any]) -> bool:
    field = named.fields.get(BLOCK_SIZE)
    return field is not None and _is_needed(field) and BLOCK_SIZE not in values


def _may_change(command: Command[Any]) -> bool:
    """Return whether it sends data or is known to change something; what a declared command receives, it reads."""
    if command.direction is Direction.IN:
        return False
    return bool(command.length) or is_known_to_change(command.cdb()[0], receives=False)


def _check_type(disk: Disk, kind: type[Command[Any]], command: Command[Any]) -> None:
    """Raise Refused if the operation code means another command to the device."""
    from scsiusb.ata import DECLARING

    device_type = disk.inquiry().peripheral_device_type
    other = catalog.lookup(command.cdb(), device_type, DECLARING)
    is_other = other is not None and other.device_types is not None and other.NAME != kind.NAME
    if is_other or (kind.device_types is not None and device_type not in kind.device_types):
        what = f"{kind.NAME} is not a command of a {device_type_text(device_type)}"
        means = catalog.name_of_cdb(command.cdb(), device_type, DECLARING)
        raise Refused(what, f"to it, the CDB is {means}; `scsiusb raw` sends it")


def _confirm(disk: Disk, device: str | None, command: Command[Any]) -> None:
    unit, sent = disk.inquiry(), command.length if command.direction is Direction.OUT else 0
    amount = f" with {counted(sent, 'byte')} of data" if sent else ""
    confirm(f"Send {command} [{command.cdb().hex(' ')}]{amount} to {unit.vendor} {unit.product}, {name_of(device)}?")


def _keeping(kind: type[Command[Any]], received: list[bytes]) -> type[Command[Any]]:
    """Return the same command, which also adds the bytes that it receives to a list."""

    class Keeping(kind):  # type: ignore[valid-type, misc]
        def reply(self, data: bytes) -> Any:
            received.append(data)
            return super().reply(data)

    return Keeping


def reply_record(reply: Any) -> Any:
    """Return a reply as names and values, for JSON."""
    if isinstance(reply, Sense):
        return sense_record(reply)
    if dataclasses.is_dataclass(reply):
        return {each.name: reply_record(getattr(reply, each.name)) for each in dataclasses.fields(reply)}
    if hasattr(reply, "_asdict"):  # a NamedTuple
        return {name: reply_record(value) for name, value in reply._asdict().items()}
    if isinstance(reply, Mapping):
        return {str(name): reply_record(value) for name, value in reply.items()}
    if isinstance(reply, (list, tuple)):
        return [reply_record(each) for each in reply]
    return reply


def _show(named: Named, reply: Any, save: str | None, device: dict[str, Any]) -> None:
    record = reply_record(reply)
    if settings().json:
        show_json({"done": True, "command": named.kind.NAME, "reply": record, "device": device})
    elif save is not None or reply is None:
        say(f"{named.kind.NAME}: done" if save is None else f"{named.kind.NAME}: the bytes received are in {save}")
    elif isinstance(record, bytes):
        show(hex_dump(record) if record else "no bytes came")
    elif isinstance(record, dict):
        _show_fields(record)
    else:
        show(str(record))


def _show_fields(record: Mapping[str, Any]) -> None:
    """Print a record; what has lists of records in it is a table after it."""
    tables = {
        name: value
        for name, value in record.items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    }
    rest = {name.replace("_", " "): _text(value) for name, value in record.items() if name not in tables}
    if rest:
        show_record(rest)
    for name, rows in tables.items():
        show(f"\n{name.replace('_', ' ')}")
        show_table(tuple(rows[0]), [[_text(value) for value in row.values()] for row in rows])


def _text(value: Any) -> Any:
    """Return a value for a line: lists and records on one line."""
    if isinstance(value, list):
        return ", ".join(str(_text(each)) for each in value) or None
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    return value.hex(" ") if isinstance(value, bytes) else value


def _list(words: Sequence[str]) -> None:
    """List the commands that have all of the words in their names."""
    wanted = [_plain(word) for word in words]
    found = [Named(each.kind) for each in catalog.declared()]
    found = [each for each in found if all(word in _plain(each.word + each.kind.NAME) for word in wanted)]
    if settings().json:
        show_json([_record(each) for each in found])
    elif found:
        rows = [(each.word, each.kind.NAME, _usage(each)) for each in found]
        show_table(("name", "command", "fields"), rows, wrapped=("fields",), optional=("command",))
    else:
        say("no command has that in its name")


def _record(named: Named) -> dict[str, Any]:
    fields = [
        {"name": name, "kind": _words(each), "default": None if _is_needed(each) else each.default}
        for name, each in named.fields.items()
    ]
    declared = catalog.describe(named.kind)
    places = {"opcode": declared.opcode, "service_action": declared.service, "section": declared.section}
    return {"name": named.word, "command": named.kind.NAME, **places, "fields": fields}


def _usage(named: Named) -> str:
    """Return the fields as in a usage line: those that can be left out in brackets."""
    shown = {name: f"{name}={_words(each)}" for name, each in named.fields.items()}
    needed = {name for name, each in named.fields.items() if _is_needed(each) and name != BLOCK_SIZE}
    return " ".join(text if name in needed else f"[{text}]" for name, text in shown.items())
