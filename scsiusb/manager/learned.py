"""What was learned of devices that are attached and not open: their quirks, until they leave."""

from __future__ import annotations

import weakref
from collections.abc import Set
from typing import Final, NamedTuple

from scsiusb.manager.attachment import Attachment
from scsiusb.quirks.model import Quirks
from scsiusb.usb.backend import Backend, Device

MOST: Final = 64  # devices; the one known longest is forgotten first


class LearnedEntry(NamedTuple):
    """What one plugging-in of a device taught."""

    device: Device
    serial: str | None
    """The bus may give the number to another device of the same model while nobody looks."""
    backend: weakref.ref[Backend] | None
    """Of a bus of this process's own: another one may take its identity when it is gone."""
    quirks: Quirks

    def is_about(self, attachment: Attachment) -> bool:
        is_same = self.backend is None or self.backend() is attachment.backend
        return is_same and (self.device, self.serial) == (attachment.info.device, attachment.info.serial)


class LearnedQuirks:
    """Keyed by the backend's identity, bus, device number and interface: one plugging-in."""

    def __init__(self) -> None:
        self._entries: dict[tuple[object, int, int, int], LearnedEntry] = {}

    def keep(self, attachment: Attachment, quirks: Quirks) -> None:
        """Whatever `quirks` have learned."""
        backend = None if attachment.backend.is_shared else weakref.ref(attachment.backend)
        self._entries.pop(attachment.key, None)
        self._entries[attachment.key] = LearnedEntry(attachment.info.device, attachment.info.serial, backend, quirks)
        while len(self._entries) > MOST:
            del self._entries[next(iter(self._entries))]

    def recall(self, attachment: Attachment, quirks: Quirks) -> Quirks:
        """The quirks, and what was learned of the attachment's device."""
        entry = self._entries.get(attachment.key)
        if entry is None:
            return quirks
        if not entry.is_about(attachment):
            del self._entries[attachment.key]
            return quirks
        return quirks.remembering(entry.quirks)

    def forget(self, backend: Backend, present: Set[tuple[int, int]]) -> None:
        """Devices of the backend that are not present have left."""
        for key in [key for key in list(self._entries) if key[0] == backend.identity]:
            if key[1:3] not in present:
                self._entries.pop(key, None)
