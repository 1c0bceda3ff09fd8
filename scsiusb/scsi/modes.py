"""Mode pages of a unit by name: read all four values of each field, and change fields, read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import IllegalRequest, MalformedReply, Miscompare, NotReady, UnsupportedOpcode
from scsiusb.scsi.commands.spc import ALL_PAGES, ModeSense6, ModeSense10
from scsiusb.scsi.commands.spc_parameters import ModeSelect6, ModeSelect10
from scsiusb.scsi.pages.mode import ModePage, ModeParameters
from scsiusb.scsi.pages.mode_layout import PageLayout
from scsiusb.scsi.pages.mode_pages import depends_on_type, find_layout, page_name
from scsiusb.scsi.sense import Sense
from scsiusb.scsi.unit import LogicalUnit

LENGTH: Final = 252  # bytes: less than 256, and a multiple of 4
LONGER: Final = 4096  # bytes, for the units that have more
NOT_KEPT: Final = Sense(0xE, 0x1D, 0)


class Values(IntEnum):
    """Which values of a page, as the PAGE CONTROL field has them (SPC-4 6.13)."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


@dataclass(frozen=True)
class FieldValues:
    """The values of one field; None where the unit does not give them."""

    current: int | None
    changeable: bool | None
    """Whether all bits of the field can be changed."""
    default: int | None
    saved: int | None


@dataclass(frozen=True)
class PageValues:
    """A mode page of a unit, with the header of the page; b"" for values that the unit does not give."""

    code: int
    subpage: int
    current: bytes
    changeable: bytes
    default: bytes
    saved: bytes
    device_type: int | None = None
    """The unit's peripheral device type, if the fields depend on it."""

    @property
    def layout(self) -> PageLayout | None:
        """The names of its fields; None where they are not known."""
        return find_layout(self.code, self.subpage, self.device_type)

    @property
    def name(self) -> str:
        """Its name, or the numbers in hex; pages that vendors define say so."""
        return page_name(self.code, self.subpage, self.device_type)

    @property
    def fields(self) -> dict[str, FieldValues]:
        """The values of the fields that the page has, by sdparm's names; empty where they are not known."""
        found = {}
        for field in () if self.layout is None else self.layout.fields:
            if field.value(self.current) is not None:
                mask = field.value(self.changeable)
                found[field.name] = FieldValues(
                    field.value(self.current),
                    None if mask is None else mask == (1 << field.bits) - 1,
                    field.value(self.default),
                    field.value(self.saved),
                )
        return found


class PageList(list[PageValues]):
    """Mode pages; `problems` says what is wrong with the answers that they are from."""

    problems: tuple[str, ...] = ()


def read_pages(unit: LogicalUnit, code: int = ALL_PAGES, subpage: int = 0) -> PageList:
    """Return a mode page, or all that the unit has, with all of their values.

    Pages that are cut or did not arrive are named in the `problems` of the list. Raises as `LogicalUnit.execute`,
    IllegalRequest for a page that the unit does not have.
    """
    current = _sense(unit, code, subpage, Values.CURRENT)
    others = [_others(unit, code, subpage, values) for values in (Values.CHANGEABLE, Values.DEFAULT, Values.SAVED)]
    changeable, default, saved = others
    is_ambiguous = any(depends_on_type(page.code) for page in current.pages)
    device_type = unit.inquiry().peripheral_device_type if is_ambiguous else None
    found = PageList(
        PageValues(
            page.code,
            page.subpage,
            whole(page),
            _same(page, changeable),
            _same(page, default),
            _same(page, saved),
            device_type,
        )
        for page in current.pages
    )
    answers = zip(Values, (current, *others), strict=True)
    found.problems = tuple(problem for values, each in answers if each for problem in _problems(values, each))
    return found


def _problems(values: Values, parameters: ModeParameters) -> Iterator[str]:
    """Yield what is missing of an answer."""
    of = f"{values.name.lower()} values"
    if parameters.missing:
        yield f"{of}: the unit has at least {parameters.missing} bytes more than it sends; pages are missing"
    if parameters.leftover:
        yield f"{of}: the last {len(parameters.leftover)} bytes are no whole page: {parameters.leftover.hex(' ')}"


def change_page(unit: LogicalUnit, code: int, subpage: int, changes: Mapping[str, int], *, save: bool = False) -> None:
    """Change fields of a mode page, by sdparm's names; with `save`, also for the time after power off.

    All other bits of the page are sent as they are. The page is read back. Raises ValueError for a field that the
    page does not have, that the unit does not let change, or a number that does not fit, before anything is sent;
    Miscompare if the unit has not done what it accepted; as `LogicalUnit.execute`.
    """
    before = read_pages(unit, code, subpage)
    page = next((each for each in before if (each.code, each.subpage) == (code, subpage)), None)
    if page is None:
        raise MalformedReply(f"MODE SENSE: the unit did not send the page {code:02x}h that was asked for")
    wanted = _changed(page, changes)
    _select(unit, bytes([wanted[0] & 0x7F]) + wanted[1:], save)
    _check(unit, page, wanted, save)


def _changed(page: PageValues, changes: Mapping[str, int]) -> bytes:
    """Return the page with the changes. Raise ValueError."""
    wanted, fields = page.current, () if page.layout is None else page.layout.fields
    for name, value in changes.items():
        field = next((each for each in fields if each.name == name.upper()), None)
        if field is None:
            raise ValueError(
                f"the page {page.name} has no field {name!r}; it has {', '.join(each.name for each in fields)}"
            )
        mask, old = field.value(page.changeable), field.value(wanted)
        changed = field.changed(wanted, value)
        if old is not None and mask is not None and (old ^ value) & ~mask:
            raise ValueError(f"this device does not let {field.name} be changed to {value}; it stays {old}")
        wanted = changed
    return wanted


def _check(unit: LogicalUnit, before: PageValues, wanted: bytes, save: bool) -> None:
    """Read the page back. Raise Miscompare if it is not what was sent."""
    after = next(
        (each for each in read_pages(unit, before.code, before.subpage) if each.code == before.code),
        before,
    )
    if after.current[1:] != wanted[1:]:
        raise Miscompare(f"the unit accepted the change of the page {before.name}, and did not make it", NOT_KEPT)
    if save and after.saved and after.saved[1:] != wanted[1:]:
        raise Miscompare(f"the unit accepted the change of the page {before.name}, and did not save it", NOT_KEPT)


def whole(page: ModePage) -> bytes:
    """Return a page with its header."""
    if page.subpage:
        return bytes([0x40 | page.code, page.subpage]) + len(page.body).to_bytes(2, "big") + page.body
    return bytes([page.code, len(page.body)]) + page.body


def _same(page: ModePage, parameters: ModeParameters | None) -> bytes:
    """Return the page with the same number and size; b"" if there is none."""
    for each in () if parameters is None else parameters.pages:
        if (each.code, each.subpage, len(each.body)) == (page.code, page.subpage, len(page.body)):
            return whole(each)
    return b""


def _others(unit: LogicalUnit, code: int, subpage: int, values: Values) -> ModeParameters | None:
    """Return other values than the current ones; None where the unit does not give them, or not without a medium."""
    try:
        return _sense(unit, code, subpage, values)
    except (IllegalRequest, NotReady):
        return None


def _sense(unit: LogicalUnit, code: int, subpage: int, values: Values) -> ModeParameters:
    """Send MODE SENSE(6), or (10) to a unit that does not have that, or has more than fits into its answer."""
    try:
        found = unit.execute(ModeSense6(code, subpage, int(values), True, LENGTH))
    except UnsupportedOpcode:
        found = unit.execute(ModeSense10(code, subpage, int(values), True, length=LENGTH))
    if found.missing:
        return _longer(unit, found, ModeSense10(code, subpage, int(values), True, length=LONGER))
    return found


def _longer(unit: LogicalUnit, short: ModeParameters, command: ModeSense10) -> ModeParameters:
    """Return the answer to the longer command; the short one if the unit refuses that, or sends fewer pages."""
    try:
        longer = unit.execute(command)
    except (IllegalRequest, MalformedReply):
        return short
    return longer if len(longer.pages) >= len(short.pages) else short


def _select(unit: LogicalUnit, page: bytes, save: bool) -> None:
    try:
        unit.execute(ModeSelect6(page, save))
    except UnsupportedOpcode:
        unit.execute(ModeSelect10(page, save))
