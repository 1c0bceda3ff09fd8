"""Quirks learned from attached devices that are not open, kept until the devices are detached."""

from __future__ import annotations

import weakref
from collections.abc import Set
from typing import Final, NamedTuple

from scsiusb.manager.attachment import Attachment
from scsiusb.quirks.model import Quirks
from scsiusb.usb.backend import Backend, Device

MOST: Final = 64  # devices; the oldest entry is dropped first


class LearnedEntry(NamedTuple):
    """Quirks learned from one device between attach and detach."""

    device: Device
    serial: str | None
    """Distinguishes devices of one model, since the bus may reuse the number while this process does not watch it."""
    backend: weakref.ref[Backend] | None
    """The backend, if it exists only in this process: a later backend may get the identity of a freed one."""
    quirks: Quirks

    def is_about(self, attachment: Attachment) -> bool:
        """Return whether the entry belongs to the attachment's device."""
        is_same = self.backend is None or self.backend() is attachment.backend
        return is_same and (self.device, self.serial) == (attachment.info.device, attachment.info.serial)


class LearnedQuirks:
    """Learned quirks by backend identity, bus, device number and interface."""

    def __init__(self) -> None:
        self._entries: dict[tuple[object, int, int, int], LearnedEntry] = {}

    def keep(self, attachment: Attachment, quirks: Quirks) -> None:
        """Store `quirks`, which include what was learned, for the attachment's device."""
        backend = None if attachment.backend.is_shared else weakref.ref(attachment.backend)
        self._entries.pop(attachment.key, None)
        self._entries[attachment.key] = LearnedEntry(attachment.info.device, attachment.info.serial, backend, quirks)
        while len(self._entries) > MOST:
            del self._entries[next(iter(self._entries))]

    def recall(self, attachment: Attachment, quirks: Quirks) -> Quirks:
        """Return `quirks` plus what was learned from the attachment's device."""
        entry = self._entries.get(attachment.key)
        if entry is None:
            return quirks
        if not entry.is_about(attachment):
            del self._entries[attachment.key]
            return quirks
        return quirks.remembering(entry.quirks)

    def forget(self, backend: Backend, present: Set[tuple[object, ...]]) -> None:
        """Drop the entries of the backend's devices whose `Device.identity` is not in `present`."""
        for key in [key for key in list(self._entries) if key[0] == backend.identity]:
            entry = self._entries.get(key)
            if entry is not None and entry.device.identity not in present:
                self._entries.pop(key, None)
