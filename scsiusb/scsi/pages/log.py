"""Log pages: parameters with their names and values (SPC-4 7.3, SBC-3 6.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.pages.fields import Field, flags, number, values_of

HEADER_LENGTH: Final = 4  # bytes
PARAMETER_HEADER: Final = 4
SUPPORTED: Final = 0x00
FIRST_VENDOR_PAGE: Final = 0x30
ALL_SUBPAGES: Final = 0xFF


class Digits(NamedTuple):
    """A number in ASCII digits."""

    name: str
    byte: int
    size: int
    text: str
    """What it means."""

    def value(self, data: bytes) -> int | None:
        """Return the number; None if it is cut, or no digits, as of a date that was not set."""
        digits = data[self.byte : self.byte + self.size]
        return int(digits) if len(digits) == self.size and digits.isdigit() else None


class ListLayout(NamedTuple):
    """Descriptors that follow the fields of a parameter, each with its own length."""

    start: int
    """Byte of the first."""
    length_at: int
    """Byte of a descriptor that counts the bytes after it."""
    fields: tuple[Field, ...]


class Layout(NamedTuple):
    """A parameter: its name, and what its value is made of; without fields, the value is one number."""

    name: str
    fields: tuple[Field | Digits, ...] = ()
    entries: ListLayout | None = None


class LogLayout(NamedTuple):
    """A log page whose parameters are known."""

    name: str
    acronym: str
    """sg_logs' abbreviation."""
    code: int
    subpage: int
    parameters: Mapping[int, Layout]
    """By parameter code."""
    all_parameters: Layout | None = None
    """Of each parameter whose code is not in the table."""


def _whole(*names: str) -> dict[int, Layout]:
    return {code: Layout(name) for code, name in enumerate(names) if name}


def _numbers(**codes: int) -> dict[int, Layout]:
    return {code: Layout(name) for name, code in codes.items()}


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
_DATE: Final = (Digits("year", 0, 4, "of the week"), Digits("week", 4, 2, "of the year"))
_PORT: Final = (
    Field("protocol", 0, 3, 4, "6: Serial Attached SCSI"),
    number("generation", 2, 1, "counts the changes of the phys; 0: not counted"),
    number("phys", 3, 1, "number of phys"),
)
_PHYS: Final = ListLayout(  # of a SAS port (SPL-2 9.2.8.1)
    4,
    3,
    (
        number("phy", 1, 1, "phy identifier"),
        Field("attached_type", 4, 6, 3, "1: a device, 2 and 3: an expander"),
        Field("attached_reason", 4, 3, 4, "why the attached phy was reset last"),
        Field("reason", 5, 7, 4, "why the phy was reset last"),
        Field("link_rate", 5, 3, 4, "8: 1.5 Gb/s, 9: 3, Ah: 6, Bh: 12, Ch: 22.5"),
        *flags(6, "- - - - attached_ssp_initiator attached_stp_initiator attached_smp_initiator", *["role"] * 3),
        *flags(7, "- - - - attached_ssp_target attached_stp_target attached_smp_target", *["role"] * 3),
        number("address", 8, 8, "SAS address"),
        number("attached_address", 16, 8, "SAS address of the attached phy"),
        number("attached_phy", 24, 1, "phy identifier of the attached phy"),
        number("invalid_dwords", 32, 4, "invalid dwords received"),
        number("disparity_errors", 36, 4, "dwords with a running disparity error"),
        number("losses_of_synchronization", 40, 4, "losses of dword synchronization"),
        number("reset_problems", 44, 4, "resets of the phy that failed"),
    ),
)
_SAS: Final = 6  # PROTOCOL IDENTIFIER
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
            0x01: Layout("available", _RESOURCE),
            0x02: Layout("used", _RESOURCE),
            0x03: Layout("available_percentage", (number("percent", 0, 2, "of the provisioning resources"), _SCOPE)),
            0x100: Layout("deduplicated", _RESOURCE),
            0x101: Layout("compressed", _RESOURCE),
            0x102: Layout("total_efficiency", _RESOURCE),
        },
    ),
    LogLayout(
        "temperature", "temp", 0x0D, 0, {0: Layout("current", _TEMPERATURE), 1: Layout("reference", _TEMPERATURE)}
    ),
    LogLayout(
        "start-stop",
        "sscc",
        0x0E,
        0,
        {
            1: Layout("manufactured", _DATE),
            2: Layout("accounting", _DATE),
            **_numbers(cycles_specified=3, cycles=4, load_cycles_specified=5, load_cycles=6),
        },
    ),
    LogLayout("application-client", "acl", 0x0F, 0, {}),
    LogLayout(
        "self-tests",
        "str",
        0x10,
        0,
        {
            code: Layout(
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
        {1: Layout("endurance", (number("percent_used", 3, 1, "percentage used of its life"),))},
    ),
    LogLayout(
        "background-scan",
        "bsr",
        0x15,
        0,
        {
            0: Layout(
                "status",
                (
                    number("minutes", 0, 4, "power-on minutes"),
                    number("status", 5, 1, "0: none, 1: under way"),
                    number("scans", 6, 2, "scans performed"),
                    number("progress", 8, 2, "of 65536"),
                    number("medium_scans", 10, 2, "scans of the whole medium performed"),
                ),
            ),
            **{code: Layout(f"error_{code}", _SCANNED) for code in range(1, 0x801)},
        },
    ),
    LogLayout("protocol", "psp", 0x18, 0, {}, Layout("port", _PORT, _PHYS)),
    LogLayout(
        "statistics",
        "gsp",
        0x19,
        0,
        {
            1: Layout(
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
            2: Layout("idle", (number("intervals", 0, 8, "time without a command, in time intervals"),)),
            3: Layout(
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
            **_numbers(to_active=1, to_idle_a=2, to_idle_b=3, to_idle_c=4, to_standby_z=8, to_standby_y=9),
        },
    ),
    LogLayout(
        "exceptions",
        "ie",
        0x2F,
        0,
        {
            0: Layout(
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
    entries: tuple[dict[str, int], ...] = ()
    """Of a SAS port: the fields of each phy."""


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
        found.append(_parameter(number_, layout, value, problems))
    return found


def _parameter(code: int, page: LogLayout | None, value: bytes, problems: list[str]) -> LogParameter:
    layout = None if page is None else page.parameters.get(code, page.all_parameters)
    if layout is None:
        return LogParameter(code, f"{code:04x}", {}, value)
    name = layout.name if page and code in page.parameters else f"{layout.name}_{code}"
    values = _values(value, layout.fields)
    has_entries = layout.entries is not None and values.get("protocol") == _SAS
    entries = _entries(value, layout.entries, problems) if layout.entries is not None and has_entries else ()
    return LogParameter(code, name, values, value, entries)


def _entries(value: bytes, layout: ListLayout, problems: list[str]) -> tuple[dict[str, int], ...]:
    """Return the fields of each descriptor; one that is cut is shown as far as it goes."""
    rest, found = value[layout.start :], list[dict[str, int]]()
    while len(rest) > layout.length_at:
        length = layout.length_at + 1 + rest[layout.length_at]
        if length > len(rest):
            problems.append(f"a descriptor of {length} bytes is cut after {len(rest)}")
        found.append(values_of(layout.fields, rest[:length]))
        rest = rest[length:]
    if rest:
        problems.append(f"the last {len(rest)} bytes are no descriptor: {rest.hex()}")
    return tuple(found)


def _values(value: bytes, fields: tuple[Field | Digits, ...]) -> dict[str, int]:
    if not fields:
        return {"value": int.from_bytes(value, "big")} if value else {}
    found: dict[str, Any] = {field.name: field.value(value) for field in fields}
    return {name: number_ for name, number_ in found.items() if number_ is not None}
