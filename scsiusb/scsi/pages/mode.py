"""Reply to MODE SENSE: mode parameters (SPC-4 7.5, SBC-3 6.4)."""

from __future__ import annotations

from typing import Final

from construct import (
    BitsInteger,
    BitStruct,
    Flag,
    GreedyBytes,
    GreedyRange,
    IfThenElse,
    Int8ub,
    Int16ub,
    Padding,
    Prefixed,
    Struct,
    this,
)

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.reply import parse

CACHING: Final = 0x08
WCE: Final = 0x04  # in the first byte of the Caching page's body
DEVICE_SPECIFIC: Final = BitStruct("write_protected" / Flag, Padding(2), "dpo_fua" / Flag, Padding(4))  # SBC-3 6.4.1

PAGE: Final = Struct(  # SPC-4 tables 457 and 458
    "head" / BitStruct("saveable" / Flag, "has_subpage" / Flag, "code" / BitsInteger(6)),
    "subpage" / IfThenElse(this.head.has_subpage, Int8ub, Padding(0)),
    "body" / IfThenElse(this.head.has_subpage, Prefixed(Int16ub, GreedyBytes), Prefixed(Int8ub, GreedyBytes)),
)
HEADER_6: Final = Struct(  # SPC-4 table 452
    "length" / Int8ub,
    "medium_type" / Int8ub,
    "device_specific" / DEVICE_SPECIFIC,
    "block_descriptors" / Prefixed(Int8ub, GreedyBytes),
    "pages" / GreedyRange(PAGE),
    "leftover" / GreedyBytes,
)
HEADER_10: Final = Struct(  # SPC-4 table 453
    "length" / Int16ub,
    "medium_type" / Int8ub,
    "device_specific" / DEVICE_SPECIFIC,
    Padding(2),
    "block_descriptors" / Prefixed(Int16ub, GreedyBytes),
    "pages" / GreedyRange(PAGE),
    "leftover" / GreedyBytes,
)


@dataclass(frozen=True)
class ModePage:
    """One mode page; `subpage` is 0 if it has none, `body` is the bytes after the PAGE LENGTH field."""

    code: int
    subpage: int
    body: bytes


@dataclass(frozen=True)
class ModeParameters:
    """Mode parameter header, block descriptors and the pages that arrived whole."""

    medium_type: int
    write_protected: bool
    """The medium is write-protected (WP)."""
    dpo_fua: bool
    """The unit supports the DPO and FUA bits (DPOFUA)."""
    block_descriptors: bytes
    """Block descriptors, not decoded."""
    pages: tuple[ModePage, ...]
    missing: int = 0
    """Bytes that the MODE DATA LENGTH counts and that did not arrive: the allocation length was too small."""
    leftover: bytes = b""
    """The bytes after the last whole page: the start of one that is cut."""

    @property
    def write_cache(self) -> bool | None:
        """Return whether the write cache is on (WCE, SBC-3 6.4.5); None if the Caching page is not among `pages`."""
        bodies = [page.body for page in self.pages if (page.code, page.subpage) == (CACHING, 0) and page.body]
        return bool(bodies[0][0] & WCE) if bodies else None

    @classmethod
    def parse(cls, data: bytes, *, long_header: bool) -> ModeParameters:
        """Parse the reply to MODE SENSE(10) if `long_header`, else to MODE SENSE(6).

        Bytes after the MODE DATA LENGTH are ignored. Raises MalformedReply if the header or the block descriptors
        are incomplete.
        """
        size = 2 if long_header else 1  # bytes of the MODE DATA LENGTH field, which does not count itself
        length = int.from_bytes(data[:size], "big") + size
        if length == size:  # the unit does not say how much there is
            length = len(data)
        fields = parse(HEADER_10 if long_header else HEADER_6, data[:length], "MODE SENSE")
        return cls(
            medium_type=fields.medium_type,
            write_protected=fields.device_specific.write_protected,
            dpo_fua=fields.device_specific.dpo_fua,
            block_descriptors=fields.block_descriptors,
            pages=tuple(ModePage(page.head.code, page.subpage or 0, page.body) for page in fields.pages),
            missing=max(length - len(data), 0),
            leftover=fields.leftover,
        )
