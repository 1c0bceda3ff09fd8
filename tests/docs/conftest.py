"""Virtual sticks in place of attached USB devices, at the addresses that the pages name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scsiusb.virtual import Bus, Identity, Stick

SERIALS = ("0123456789AB", "0123456789AC", "0123456789AD", "0123456789AE")
FILES = {"image.img": 1 << 20}


class Desk(Bus):
    """A bus that stays when a user of the shared libusb closes it."""

    def close(self) -> None:
        """Close nothing, as with the shared libusb; `clear` does."""

    def clear(self) -> None:
        """Close what is open, and unplug the sticks."""
        super().close()


Attach = Callable[[int], Desk]


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, users_file: Path, state_folder: Path) -> Iterator[Attach]:
    """Attach so many sticks at 2-1, 2-2, …; the example runs in a folder that has only the files it may use."""
    import scsiusb.cli.commands.doctor
    import scsiusb.cli.commands.manage
    import scsiusb.usb.libusb.backend

    folder = tmp_path / "example"
    folder.mkdir()
    for name, size in FILES.items():
        (folder / name).write_bytes(bytes(size))
    monkeypatch.chdir(folder)
    desks: list[Desk] = []

    def prepare(count: int) -> Desk:
        identities = [Identity(vid=0x46F4, serial=serial, product="USB HARDDRIVE") for serial in SERIALS[:count]]
        desk = Desk(*(Stick.formatted(identity=identity) for identity in identities), number=2)
        desks.append(desk)
        for module in (scsiusb.cli.commands.doctor, scsiusb.cli.commands.manage, scsiusb.usb.libusb.backend):
            monkeypatch.setattr(module, "libusb", lambda: desk)
        return desk

    yield prepare
    for desk in desks:
        assert not desk.handles
        desk.clear()
