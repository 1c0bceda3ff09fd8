"""Log pages: parameters with their names and values (SPC-4 7.3, SBC-3 6.3)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.pages.fields import Field, number

HEADER_LENGTH: Final = 4  # bytes
PARAMETER_HEADER: Final = 4
SUPPORTED: Final = 0x00
FIRST_VENDOR_PAGE: Final = 0x30
ALL_SUBPAGES: Final = 0xFF


class LogLayout(NamedTuple):
    """A log page whose parameters are known."""

    name: str
    acronym: str
    """sg_logs' abbreviation."""
    code: int
    subpage: int
    parameters: dict[int, tuple[str, tuple[Field, ...]]]
    """By parameter code: the name, and fields of the value; no fields: the value is one number."""


def _whole(*names: str) -> dict[int, tuple[str, tuple[Field, ...]]]:
    return {code: (name, ()) for code, name in enumerate(names) if name}


_ERRORS: Final = _whole(
    "corrected_without_delay",
    "corrected_with_delay",
    "total_retries",
    "total_corrected",
    "times_algorithm_processed",
    "total_bytes_processed",
    "total_uncorrected",
)
_SCOPE: Final = Field("scope", 4, 1, 2, "1: of this unit alone, 2: shared with others, 0: not reported")
_RESOURCE: Final = (number("count", 0, 4, "units of the threshold set size"), _SCOPE)
_SCANNED: Final = (
    number("minutes", 0, 4, "power-on minutes then"),
    Field("reassigned", 4, 7, 4, "1: to be, 2: done, 4: failed, 5: recovered by a rewrite, …"),
    Field("sense_key", 4, 3, 4, "sense key"),
    number("asc", 5, 1, "additional sense code"),
    number("ascq", 6, 1, "additional sense code qualifier"),
    number("lba", 12, 8, "the block"),
)
_TEMPERATURE: Final = (number("celsius", 1, 1, "degrees Celsius; 255: not known"),)
LAYOUTS: Final = (
    LogLayout("write-errors", "we", 0x02, 0, _ERRORS),
    LogLayout("read-errors", "re", 0x03, 0, _ERRORS),
    LogLayout("verify-errors", "ve", 0x05, 0, _ERRORS),
    LogLayout("non-medium-errors", "nm", 0x06, 0, _whole("errors")),
    LogLayout(
        "provisioning",
        "lbp",
        0x0C,
        0,
        {
            0x01: ("available", _RESOURCE),
            0x02: ("used", _RESOURCE),
            0x03: ("available_percentage", (number("percent", 0, 2, "of the provisioning resources"), _SCOPE)),
            0x100: ("deduplicated", _RESOURCE),
            0x101: ("compressed", _RESOURCE),
            0x102: ("total_efficiency", _RESOURCE),
        },
    ),
    LogLayout("temperature", "temp", 0x0D, 0, {0: ("current", _TEMPERATURE), 1: ("reference", _TEMPERATURE)}),
    LogLayout(
        "start-stop",
        "sscc",
        0x0E,
        0,
        {3: ("cycles_specified", ()), 4: ("cycles", ()), 5: ("load_cycles_specified", ()), 6: ("load_cycles", ())},
    ),
    LogLayout("application-client", "acl", 0x0F, 0, {}),
    LogLayout(
        "self-tests",
        "str",
        0x10,
        0,
        {
            code: (
                f"test_{code}",
                (
                    Field("kind", 0, 7, 3, "self-test code"),
                    Field("result", 0, 3, 4, "0: passed"),
                    number("number", 1, 1, "segment that failed"),
                    number("hours", 2, 2, "power-on hours then"),
                    number("lba", 4, 8, "first failure"),
                    Field("sense_key", 12, 3, 4, "sense key"),
                    number("asc", 13, 1, "additional sense code"),
                    number("ascq", 14, 1, "additional sense code qualifier"),
                ),
            )
            for code in range(1, 21)
        },
    ),
    LogLayout(
        "solid-state",
        "ssm",
        0x11,
        0,
        {1: ("endurance", (number("percent_used", 3, 1, "percentage used of its life"),))},
    ),
    LogLayout(
        "background-scan",
        "bsr",
        0x15,
        0,
        {
            0: (
                "status",
                (
                    number("minutes", 0, 4, "power-on minutes"),
                    number("status", 5, 1, "0: none, 1: under way"),
                    number("scans", 6, 2, "scans performed"),
                    number("progress", 8, 2, "of 65536"),
                    number("medium_scans", 10, 2, "scans of the whole medium performed"),
                ),
            ),
            **{code: (f"error_{code}", _SCANNED) for code in range(1, 0x801)},
        },
    ),
    LogLayout("protocol", "psp", 0x18, 0, {}),
    LogLayout(
        "statistics",
        "gsp",
        0x19,
        0,
        {
            1: (
                "commands",
                (
                    number("reads", 0, 8, "read commands"),
                    number("writes", 8, 8, "write commands"),
                    number("blocks_received", 16, 8, "blocks written by the host"),
                    number("blocks_transmitted", 24, 8, "blocks read by the host"),
                    number("read_intervals", 32, 8, "time of reads, in time intervals"),
                    number("write_intervals", 40, 8, "time of writes, in time intervals"),
                    number("weighted_commands", 48, 8, "reads and writes, weighted"),
                    number("weighted_intervals", 56, 8, "time of reads and writes, weighted"),
                ),
            ),
            2: ("idle", (number("intervals", 0, 8, "time without a command, in time intervals"),)),
            3: (
                "time_interval",
                (
                    number("negative_exponent", 0, 4, "the interval is the integer by 10^-exponent seconds"),
                    number("integer", 4, 4, "see the exponent"),
                ),
            ),
        },
    ),
    LogLayout(
        "power-transitions",
        "pct",
        0x1A,
        0,
        {
            1: ("to_active", ()),
            2: ("to_idle_a", ()),
            3: ("to_idle_b", ()),
            4: ("to_idle_c", ()),
            8: ("to_standby_z", ()),
            9: ("to_standby_y", ()),
        },
    ),
    LogLayout(
        "exceptions",
        "ie",
        0x2F,
        0,
        {
            0: (
                "exception",
                (
                    number("asc", 0, 1, "additional sense code; 0: none"),
                    number("ascq", 1, 1, "additional sense code qualifier"),
                    number("celsius", 2, 1, "degrees Celsius; 255: not known"),
                    number("celsius_limit", 3, 1, "degrees Celsius; of some makers"),
                ),
            )
        },
    ),
)


@dataclass(frozen=True)
class LogParameter:
    """One parameter of a log page."""

    code: int
    name: str
    """Its name, or its code in hex."""
    values: dict[str, int]
    """The fields, or `value` for one number; empty where its form is not known."""
    data: bytes
    """Its bytes, without the header."""


@dataclass(frozen=True)
class LogPage:
    """A log page; what came is there, also where the page is cut or lies about its length."""

    code: int
    subpage: int
    name: str
    pages: tuple[tuple[int, int], ...]
    """Of the list of supported pages: code and subpage of each; else empty."""
    parameters: tuple[LogParameter, ...]
    problems: tuple[str, ...]
    """What is wrong with the page, in words."""
    data: bytes
    """All bytes that came."""

    @classmethod
    def parse(cls, data: bytes) -> LogPage:
        """Parse a page with its header. Raises MalformedReply below 4 bytes."""
        if len(data) < HEADER_LENGTH:
            raise MalformedReply(f"LOG SENSE: received only {len(data)} bytes")
        code, subpage = data[0] & 0x3F, data[1] if data[0] & 0x40 else 0
        length = int.from_bytes(data[2:4], "big")
        body, problems = data[HEADER_LENGTH : HEADER_LENGTH + length], []
        if len(body) < length:
            problems.append(f"the page has {length} bytes after its header, of which {len(body)} came")
        if len(data) > HEADER_LENGTH + length:
            problems.append(f"{len(data) - HEADER_LENGTH - length} bytes came after the end of the page")
        if code == SUPPORTED:
            width = 2 if subpage == ALL_SUBPAGES else 1
            pages = tuple(
                (body[at] & 0x3F, body[at + 1] if width == 2 else 0) for at in range(0, len(body) - width + 1, width)
            )
            return cls(code, subpage, page_name(code, subpage), pages, (), tuple(problems), data)
        parameters = tuple(_parameters(code, subpage, body, problems))
        return cls(code, subpage, page_name(code, subpage), (), parameters, tuple(problems), data)


def find_layout(code: int, subpage: int) -> LogLayout | None:
    """Return the layout of a page, None if its parameters are not known."""
    return next((each for each in LAYOUTS if (each.code, each.subpage) == (code, subpage)), None)


def page_name(code: int, subpage: int) -> str:
    """Return the name of a page, or its numbers in hex."""
    if code == SUPPORTED:
        return "supported"
    layout = find_layout(code, subpage)
    if layout is not None:
        return layout.name
    numbers = f"{code:02x}" + (f",{subpage:02x}" if subpage else "")
    return f"vendor specific {numbers}" if code >= FIRST_VENDOR_PAGE else numbers


def page_called(word: str) -> tuple[int, int]:
    """Return the code and subpage of a page by its name, abbreviation, or in hex: d, 0x0d,1. Raise ValueError."""
    for each in LAYOUTS:
        if word.lower() in (each.name, each.acronym):
            return each.code, each.subpage
    try:
        code, subpage = (int(each, 16) for each in (*word.split(","), "0")[:2])
    except ValueError:
        code = subpage = -1
    if word.count(",") > 1 or not (0 <= code <= 0x3F and 0 <= subpage <= 0xFF):
        known = ", ".join(each.name for each in LAYOUTS)
        raise ValueError(f"there is no log page {word!r}; use a number in hex, such as d or d,1, or one of: {known}")
    return code, subpage


def _parameters(code: int, subpage: int, body: bytes, problems: list[str]) -> list[LogParameter]:
    layout, found = find_layout(code, subpage), []
    while body:
        length = PARAMETER_HEADER + (body[3] if len(body) >= PARAMETER_HEADER else 0)
        if len(body) < length:
            problems.append(f"a parameter of {length} bytes is cut after {len(body)}: {body.hex()}")
            break
        value, body, number_ = body[PARAMETER_HEADER:length], body[length:], int.from_bytes(body[:2], "big")
        name, fields = (layout.parameters if layout else {}).get(number_, ("", None))
        found.append(LogParameter(number_, name or f"{number_:04x}", _values(value, fields), value))
    return found


def _values(value: bytes, fields: tuple[Field, ...] | None) -> dict[str, int]:
    if fields is None:
        return {}
    if not fields:
        return {"value": int.from_bytes(value, "big")} if value else {}
    found: dict[str, Any] = {field.name: field.value(value) for field in fields}
    return {name: number_ for name, number_ in found.items() if number_ is not None}
