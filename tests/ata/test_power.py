"""The power mode of a disk, and putting it to rest."""

from __future__ import annotations

import pytest

import scsiusb
from scsiusb.ata.power import MODES, is_resting, power_mode, standby

SAT = "virtual:?profile=sat-ssd"


def test_a_disk_is_put_to_rest_and_woken_by_a_read_and_asking_does_not_wake_it() -> None:
    with scsiusb.open(SAT) as disk:
        assert power_mode(disk.unit) == "active or idle"
        disk.write(5, bytes(512))
        standby(disk.unit)
        for _ in range(3):
            assert power_mode(disk.unit) == "standby_z"
        disk.read(0, 1)
        assert power_mode(disk.unit) == "active or idle"


@pytest.mark.parametrize("bridge", ["usbcypress", "usbsunplus", "usbprolific"])
def test_bridges_with_commands_of_their_own(bridge: str) -> None:
    with scsiusb.open(f"{SAT}&bridge={bridge}") as disk:
        assert power_mode(disk.unit) == power_mode(disk.unit, bridge) == "active or idle"


def test_a_bridge_to_nvme_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with scsiusb.open("virtual:?profile=nvme-bridge") as disk:
        with pytest.raises(scsiusb.UnsupportedOpcode):
            power_mode(disk.unit)  # by its IDs it may be one to SATA, too
        monkeypatch.setattr("scsiusb.ata.power.dialects_of", lambda *ids, is_removable: ("sntasmedia",))
        with pytest.raises(scsiusb.DeviceUnsupported, match="a bridge to NVMe"):
            power_mode(disk.unit)


def test_a_bridge_that_does_not_return_the_registers() -> None:
    with (
        scsiusb.open(f"{SAT}&bridge=usbjmicron") as disk,
        pytest.raises(scsiusb.DeviceUnsupported, match="does not return the registers"),
    ):
        power_mode(disk.unit, "usbjmicron")


def test_a_stick_has_none() -> None:
    with scsiusb.open("virtual:") as disk, pytest.raises(scsiusb.UnsupportedOpcode):
        power_mode(disk.unit)


def test_a_dialect_that_has_no_ata_commands() -> None:
    with scsiusb.open(SAT) as disk, pytest.raises(ValueError, match="no dialect for ATA commands"):
        power_mode(disk.unit, "sntasmedia")


def test_modes_in_which_the_medium_is_stopped() -> None:
    assert [code for code, mode in MODES.items() if is_resting(mode)] == [0x00, 0x01]
