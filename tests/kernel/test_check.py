"""`scsiusb check` on devices of other authors: it reports their real faults and nothing else.

What each finding looks like on the wire is in docs/conformance.md.
"""

from __future__ import annotations

import pytest

import scsiusb
from scsiusb.conformance.device_under_test import Area
from scsiusb.conformance.engine import Report, run
from scsiusb.conformance.outcome import Check
from scsiusb.conformance.table import CHECKS

from .command import scsiusb as cli
from .machine import Device, Unit, units

TIMEOUT = 5.0  # under emulation
AREA = Area(1000, 4)
SCRATCH = ("scratch:0", "gadget-high:0", "gadget-super:0")  # may be written to

# These stop QEMU with a failed assertion, and the guest with it.
KILLS_QEMU = {
    "recovery-after-stall",  # a CBW after a class reset that was sent before a CSW with a residue
}
OURS = {"serial-number"}  # the zoo's serial numbers are words

# QEMU 7.2, usb-storage and usb-bot.
QEMU = {
    "halt-feature",  # SET_FEATURE(ENDPOINT_HALT) is stalled
    "halt-status",  # GET_STATUS of an endpoint is stalled
    "case-2",  # no CSW if the command has data and the CBW has none
    "case-7",  # status 0 if the command has more data than the CBW
    "case-10",  # neither data nor CSW if both the command and the host send
    "residue-short-sense",  # REQUEST SENSE is filled up with zeros, which count as data
    "inquiry-lengths",  # ADDITIONAL LENGTH changes with the allocation length
    "vpd-designators",  # page 83h has only a vendor specific designator of the unit
    *OURS,
}
WITH_MEDIUM = {"case-2-read", "case-7-read", "case-10-read"}
WRITTEN = {
    "case-3",  # no CSW if the command takes data and the CBW has none
    "case-8",  # no CSW if the command takes data and the host expects data
    "case-13",  # status 0 if the command takes more data than the CBW has
}
# REQUEST SENSE to a LUN above 0 always answers LOGICAL UNIT NOT SUPPORTED.
NO_SENSE = {"invalid-opcode", "invalid-field", "sense-per-failure"}
NO_SENSE |= {"vpd-unlisted", "mode-page-control", "mode-unknown-page"}

# Linux's gadget, f_mass_storage on dummy_hcd, with stall=0, as configfs has it: where a block is less than a packet.
SHORT_BLOCKS = {"csw-at-once"}  # data that a short packet ended is followed by an empty packet
SHORT_BLOCKS_WRITTEN = {"case-11"}  # no CSW where a packet holds the data that is taken and data that is not
PACKETS = {480: 512, 5000: 1024}
# A packet that is in dummy_hcd's FIFO at the time of the class reset is still there after it. Whether it is there
# is a race between two threads of the guest's kernel.
STALE_PACKET = {
    *("cbw-lun", "cbw-meaningless", "recovery-idle", "recovery-after-cbw", "recovery-before-csw"),
    *("recovery-without-data", "recovery-after-stall", "recovery-first-packet", "recovery-in-data"),
    *("recovery-of-write", "recovery-in-write"),
}

SLOW = {"command-timing"}  # under emulation
EXPECTED = {
    "stick:0": QEMU | WITH_MEDIUM,
    "stick-4k:0": QEMU | WITH_MEDIUM,
    "empty:0": QEMU,
    "multi:0": QEMU | WITH_MEDIUM,
    "multi:1": QEMU | WITH_MEDIUM | NO_SENSE | {"beyond-end", "crossing-end"},
    "multi:2": QEMU | NO_SENSE | {"test-unit-ready"},
    "cdrom:0": QEMU,
    "fat:0": QEMU | WITH_MEDIUM,
    "scratch:0": QEMU | WITH_MEDIUM | WRITTEN,
}


def expected(unit: Unit) -> set[str]:
    """What the unit fails, which is QEMU's or, in the native lab any, the kernel's gadget."""
    if unit.device.kind != "gadget":
        return EXPECTED[str(unit)]
    if unit.path is None or unit.block_size >= PACKETS[unit.device.speed]:
        return OURS
    return OURS | SHORT_BLOCKS | (SHORT_BLOCKS_WRITTEN if str(unit) in SCRATCH else set())


def checked(unit: Unit) -> Report:
    is_qemu = unit.device.kind != "gadget"
    checks: list[Check] = [check for check in CHECKS.values() if not (is_qemu and check.name in KILLS_QEMU)]
    with scsiusb.open(unit.device.address, lun=unit.lun) as disk:
        transport = disk.unit.transport
        return run(transport, unit.lun, checks, timeout=TIMEOUT, area=AREA if str(unit) in SCRATCH else None)


@pytest.mark.parametrize("unit", units(bot=True), ids=str)
def test_each_device_fails_exactly_the_checks_that_it_should(unit: Unit) -> None:
    report = checked(unit)
    is_gadget = unit.device.kind == "gadget"
    may_fail = STALE_PACKET if is_gadget else set()
    assert report.ended == ""
    assert set(report.failed) - may_fail == expected(unit)
    assert set(report.warned) - SLOW == ({"early-end-stalls"} if is_gadget else set())


def test_the_device_is_released_after_a_check_from_the_command_line(scratch: Device) -> None:
    ended = cli("check", scratch.address, "--only", "case-[1456]", "--json", "--timeout", TIMEOUT)
    assert [(row["check"], row["verdict"]) for row in ended.json()["checks"]] == [
        (f"case-{number}", "pass") for number in (1, 4, 5, 6)
    ]
    assert scratch.wait().bound() == "usb-storage"
    unit = scratch.units[0]
    assert unit.kernel_read(0, 8) == unit.backing(0, 8)
