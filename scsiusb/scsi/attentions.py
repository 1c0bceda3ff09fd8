"""What a LUN reported, which it reports only once, and what is known of its medium; all users of the LUN share it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from scsiusb.base.counter import EventCounter
from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.sense import NO_SENSE, RECOVERED_ERROR, Sense


class Bound(Protocol):
    """A medium that block addresses mean."""

    @property
    def changes(self) -> int:
        """The unit's `medium_changes` when it was found."""

    @property
    def blocks(self) -> int:
        """The number of its blocks."""


class Witness(NamedTuple):
    """A block by which a removable medium is known again."""

    lba: int
    contents: tuple[bytes, ...]
    """What it may hold: what was read, and what was written since and may not be flushed."""
    changes: int
    """The unit's `medium_changes` then."""


@dataclass
class Attentions:
    """The unit attentions that a LUN reported; it reports each only once, to the user whose command came next."""

    losses: EventCounter
    """The transport's count of exchanges that did not end with an accepted status."""
    doubts: EventCounter
    """The transport's count of losses, and of resets that a unit reported."""
    port_resets: EventCounter
    """The transport's count of resets of the port."""
    medium_changes: int = 0
    """How often the unit said that its medium may have changed, or that there is none."""
    resets: int = 0
    """How often the unit said that it was reset: what its cache held may be gone."""
    lost_writes: int = 0
    """How often the unit reported that it did not carry out an earlier command (a deferred error, SPC-4 4.5.7)."""
    lost_write: Sense | None = None
    """The last such report."""
    has_flushed: bool = False
    """Whether the unit has ever carried out SYNCHRONIZE CACHE."""
    cannot_flush: bool = False
    """Whether the unit has shown that it does not support SYNCHRONIZE CACHE."""
    cannot_report_protection: bool = False
    """Whether the unit has shown that it does not report write protection."""
    cannot_give_vpd: bool = False
    """Whether the unit did not answer when it was asked for vital product data."""
    has_long_sense: bool = False
    """Whether the unit had more sense data than it was asked for."""
    is_alone: bool = False
    """Whether other units of the device must not be asked whether they have a medium: one did not answer."""
    no_read_capacity_16: bool = False
    """Whether the unit has refused READ CAPACITY(16)."""
    losses_seen: int = 0
    """The count of losses when the unit was last asked what it had said in one."""
    settled: int = 0
    """The count of doubts when the medium was last found to be the same."""
    reasonless: int = 0
    """Doubts since then that come from failures for which the unit gave no reason, in sense data that is complete."""
    used: int = -1
    """The count of medium changes of the medium that was last read or written."""
    witness: Witness | None = None
    """A block by which the medium would be known again."""

    def note(self, sense: Sense) -> None:
        """Count a change, a reset or a deferred error, which others must learn of who rely on the medium or the cache.

        After a deferred error, data that was accepted is lost: the flush of each user that wrote must say so.
        """
        if sense.is_medium_changed or sense.is_no_medium:
            self.medium_changes += 1
        if sense.is_reset:
            self.count_reset()
        if sense.deferred and sense.key not in (NO_SENSE, RECOVERED_ERROR):
            self.lost_write = sense  # first: it belongs to the count
            self.lost_writes += 1

    def note_vague(self, sense: Sense) -> None:
        """Count what a sense without a reason may hide: a reset; and a change, if not even the key can be relied on."""
        if sense.is_vague:
            self.count_reset()
            if sense.is_cut:
                self.medium_changes += 1
            elif sense.is_empty:
                self.reasonless += 1

    def count_reset(self) -> None:
        """Count a reset of the unit, which may have hidden a change of its medium."""
        self.resets += 1
        self.doubts.count += 1

    def count_loss(self) -> None:
        """Count an exchange in which the unit may have reported something that was lost."""
        self.losses.count += 1
        self.doubts.count += 1

    def settle(self, doubts: int, *, is_same: bool) -> None:
        """Record whether the medium is still the same after so many doubts; if not, that is a change of it."""
        if not is_same:  # first, so that no doubt is settled whose change is not counted yet
            self.medium_changes += 1
        self.settled = doubts
        self.reasonless = 0
