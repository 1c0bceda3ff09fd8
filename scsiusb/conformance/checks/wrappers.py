"""Checks of the command and status wrappers: the CSW must be valid and meaningful, and bad CBWs must be handled."""

from __future__ import annotations

from functools import partial
from typing import Final

from scsiusb.conformance.device_under_test import DeviceUnderTest
from scsiusb.conformance.exchange import ExchangeResult, Raw, Request, describe
from scsiusb.conformance.outcome import Check, NotApplicable, Violation
from scsiusb.conformance.provocation import SMALL, provoke, unassigned
from scsiusb.errors import TransferStalled
from scsiusb.scsi.commands.sbc import TOO_LARGE_FOR_10, Read10, Read16, ReadCapacity10
from scsiusb.scsi.commands.spc import Inquiry, RequestSense, TestUnitReady
from scsiusb.scsi.pages.inquiry import ADDITIONAL_LENGTH
from scsiusb.transport.base import FAILED, Direction
from scsiusb.transport.bot.formats import CBW_CODEC, CSW_CODEC, CSW_SIGNATURE, FLAG_DATA_IN, MAX_LUN
from scsiusb.usb.backend import Code

TAGS: Final = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x55534253)  # the last: "SBSU"
MOST: Final = 255  # bytes; more than INQUIRY has
CDB_LENGTH_6: Final = 6
FLAGS_AT, LUN_AT, LENGTH_AT, CDB_AT = 12, 13, 14, 15  # in a CBW
TOO_LONG: Final = 17  # bytes of a CDB


# --- the CSW ----------------------------------------------------------------------------------------


def csw_length(device: DeviceUnderTest) -> str:
    """Check the length of the CSW; more than 13 bytes would come in the same packet or in the next read."""
    for request in (TestUnitReady(), Inquiry()):
        result = device.exchange.command(request)
        result.require(result.cbw is Code.OK and result.csw_code is Code.OK, "a CSW")
        result.require(len(result.csw) == CSW_CODEC.length, "13 bytes in one short packet")
        if result.empties:
            raise Violation(result.asked, "an empty packet before the CSW", "the CSW without an empty packet before it")
    return "13 bytes"


def csw_signature(device: DeviceUnderTest) -> str:
    """Check the signature of the CSW of good and failed commands."""
    for request in (TestUnitReady(), Inquiry(), unassigned()):
        result = device.run(request)
        signature = result.fields[0]
        if signature != CSW_SIGNATURE:
            raise Violation(result.asked, f"signature {signature.hex(' ')}", CSW_SIGNATURE.hex(" "))
    return CSW_SIGNATURE.hex(" ")


def csw_tag(device: DeviceUnderTest) -> str:
    """Send commands with unusual tags."""
    for tag in TAGS:
        for request in (TestUnitReady(), Inquiry()):
            result = device.run(request, tag=tag)
            if result.fields[1] != tag:
                raise Violation(f"{result.asked}, tag {tag:08X}h", f"tag {result.fields[1]:08X}h", "the same tag")
    return "echoed: " + ", ".join(f"{tag:X}h" for tag in TAGS)


def csw_meaningful(device: DeviceUnderTest) -> str:
    """Check the status and the residue of commands whose CBW is valid and meaningful."""
    for request in (TestUnitReady(), Inquiry(), Inquiry(length=MOST), RequestSense(), unassigned()):
        result = device.run(request)
        result.require(result.residue <= result.length, f"a residue of at most {result.length}")
        result.require(result.status <= FAILED, "status 0 or 1")
    return "status 0 or 1, no residue above the announced length"


def csw_at_once(device: DeviceUnderTest) -> str:
    """Look for an empty packet between data that ends with a short packet and the CSW."""
    requests: list[Request] = [Raw("INQUIRY of 36 bytes", Inquiry().cdb(), MOST), unassigned(length=SMALL)]
    if device.is_ready:
        last = device.capacity.last_lba
        kind = Read10 if last < TOO_LARGE_FOR_10 else Read16
        requests.append(kind(last, 2, block_size=device.block_size))
    for request in requests:
        result = device.run(request)
        if result.moved % device.exchange.port.bulk_in.max_packet_size and result.empties:
            raise Violation(
                result.asked, f"{result.moved} bytes, an empty packet, the CSW", "the CSW right after the data"
            )
        if result.is_failed:
            device.sense()
    return "no empty packet before the CSW"


def residue_of_less(device: DeviceUnderTest) -> str:
    """Announce 255 bytes for INQUIRY and compare the residue with ADDITIONAL LENGTH."""
    result = device.good(Inquiry(length=MOST))
    if len(result.data) <= ADDITIONAL_LENGTH:
        raise NotApplicable(f"INQUIRY returned only {len(result.data)} bytes")
    there = min(result.data[ADDITIONAL_LENGTH] + ADDITIONAL_LENGTH + 1, MOST)
    result.require(result.residue == MOST - there, f"residue {MOST - there}: there are {there} bytes of INQUIRY data")
    return f"{result.asked}: {result.description}"


def residue_of_sense(device: DeviceUnderTest) -> str:
    """Announce 252 bytes for REQUEST SENSE and compare the residue with ADDITIONAL SENSE LENGTH."""
    result = device.good(RequestSense(length=252))
    if len(result.data) < 8 or result.data[0] & 0x7F not in (0x70, 0x71):
        raise NotApplicable("the sense data is not in fixed format")
    there = result.data[7] + 8
    result.require(result.residue == 252 - there, f"residue {252 - there}: there are {there} bytes of sense data")
    return f"{result.asked}: {result.description}"


def residue_of_all(device: DeviceUnderTest) -> str:
    """Check the residue of commands that return all announced data."""
    requests: list[Request] = [Inquiry()]
    if device.is_ready:
        requests += [ReadCapacity10(), device.reading(0, 1)]
    for request in requests:
        result = device.good(request)
        result.require(result.moved == result.length, f"{result.length} bytes")
        result.require(result.residue == 0, "residue 0: all data was transferred")
    return "residue 0: " + ", ".join(map(str, requests))


def residue_of_failure(device: DeviceUnderTest) -> str:
    """Announce 36 bytes for a command that cannot exist, and check the residue."""
    result = provoke(device, SMALL)
    result.require(result.residue == result.length, f"residue {result.length}: there is no data")
    return f"{result.asked}: {result.description}"


# --- the CBW ----------------------------------------------------------------------------------------


def direction_ignored(device: DeviceUnderTest) -> str:
    """Send TEST UNIT READY with both values of the direction bit."""
    for flags in (0, FLAG_DATA_IN):
        result = device.run(TestUnitReady(), flags=flags)
        result.require(result.status <= FAILED, "status 0 or 1: the direction bit has no meaning without data")
    return "bmCBWFlags 00h and 80h have the same effect for a command without data"


def padding_ignored(device: DeviceUnderTest) -> str:
    """Send TEST UNIT READY with FFh instead of zeros after the CDB."""
    block = TestUnitReady().cdb()
    plain = device.run(TestUnitReady())
    result = device.run(Raw("TEST UNIT READY with FFh after its 6 bytes", block.ljust(16, b"\xff")), cdb_length=6)
    result.require(result.status == plain.status, f"status {plain.status}, as with zeros")
    return "bytes after the CDB are ignored"


def invalid(change: str, device: DeviceUnderTest) -> str:
    """Send an invalid CBW (BOT 6.6.1): bulk-in must stall until reset recovery; bulk-out may stall or discard."""
    exchange = device.exchange
    packet = _broken(device, change)
    asked = f"a CBW {change}"
    code, _ = exchange.send(packet, "cbw")
    if code not in (Code.OK, Code.PIPE):
        raise Violation(asked, describe(code), "the device to accept it, or STALL")
    first = exchange.receive(exchange.port.bulk_in.max_packet_size, "csw")
    if first[0] is not Code.PIPE:
        raise Violation(asked, f"bulk-in: {describe(first[0]) or first[1].hex(' ')}", "STALL on bulk-in")
    exchange.clear_halt_in()
    again = exchange.receive(exchange.port.bulk_in.max_packet_size, "csw")
    if again[0] is not Code.PIPE:
        came = f"bulk-in after clear-halt: {describe(again[0]) or again[1].hex(' ')}"
        raise Violation(asked, came, "STALL again until reset recovery")
    exchange.reset_recovery()
    device.run(TestUnitReady())
    device.run(Inquiry())
    return "bulk-in stalls until reset recovery, and commands work after it"


def _broken(device: DeviceUnderTest, change: str) -> bytes:
    packet = device.exchange.cbw(TestUnitReady(), 0, Direction.NONE)
    return {
        WRONG_SIGNATURE: b"USBX" + packet[4:],
        TOO_SHORT: packet[:-1],
        TOO_MUCH: packet + b"\0",
    }[change]


WRONG_SIGNATURE: Final = "with the signature USBX"
TOO_SHORT: Final = "of 30 bytes"
TOO_MUCH: Final = "of 32 bytes"


def meaningless(device: DeviceUnderTest) -> str:
    """Send CBWs that are valid but not meaningful. Any reply is allowed (BOT 6.2.2), but recovery must work."""
    plain = device.exchange.cbw(TestUnitReady(), 0, Direction.NONE)
    for change, at, value in (
        ("with a reserved bit in bmCBWFlags", FLAGS_AT, 0x01),
        ("with a reserved bit in bCBWLUN", LUN_AT, 0x10 | device.lun),
        ("with a reserved bit in bCBWCBLength", LENGTH_AT, 0x20 | CDB_LENGTH_6),
        ("with a CDB of 0 bytes", LENGTH_AT, 0),
        ("with a CDB of 17 bytes", LENGTH_AT, TOO_LONG),
    ):
        packet = bytearray(plain)
        packet[at] = value
        _send_and_recover(device, f"a CBW {change}", bytes(packet))
    return "reset recovery works after each of these CBWs"


def _send_and_recover(device: DeviceUnderTest, asked: str, packet: bytes) -> None:
    assert len(packet) == CBW_CODEC.length
    device.exchange.send(packet, "cbw")
    try:
        device.exchange.reset_recovery()
    except TransferStalled:
        raise Violation(f"reset recovery after {asked}", "STALL", "the device to accept it") from None
    result: ExchangeResult = device.exchange.command(Inquiry())
    if not result.is_good:
        raise Violation(f"{asked}, reset recovery, INQUIRY", result.description, "status 0")


def no_such_lun(device: DeviceUnderTest) -> str:
    """Send a CBW, then INQUIRY, to the LUN after the last one."""
    lun = device.max_lun + 1
    if lun > MAX_LUN:
        raise NotApplicable("the device has 16 logical units, the maximum")
    packet = device.exchange.cbw(TestUnitReady(), 0, Direction.NONE, lun=lun)
    _send_and_recover(device, f"a CBW to LUN {lun}, which does not exist", packet)
    result = device.exchange.command(Inquiry(), lun=lun)
    if result.has_csw and result.is_good and result.data[:1] and result.data[0] >> 5 != 3:
        raise Violation(
            result.asked, f"{result.description}, byte 0 is {result.data[0]:02X}h", "peripheral qualifier 3"
        )
    return f"LUN {lun}: {result.description}"


def cdb_16(device: DeviceUnderTest) -> str:
    """Send SERVICE ACTION IN(16) as READ CAPACITY(16), and with an unsupported service action."""
    statuses = []
    for action in (0x10, 0x00):
        block = bytes((0x9E, action)) + bytes(11) + b"\x20" + bytes(2)
        result = device.run(Raw(f"command 9Eh/{action:02X}h of 16 bytes", block, 32))
        result.require(result.status <= FAILED, "status 0 or 1")
        statuses.append(f"9Eh/{action:02X}h: status {result.status}")
    return ", ".join(statuses)


IN: Final = "BOT 6.7.2"
CHECKS: Final = (
    Check(
        "csw-length",
        "BOT 5.3.3",
        "The CSW must be a packet of exactly 13 bytes, without an empty packet before it.",
        csw_length,
    ),
    Check(
        "csw-at-once",
        "BOT 5.3.3",
        "After data that ends with a short packet, the next packet must be the CSW.",
        csw_at_once,
    ),
    Check("csw-signature", "BOT 5.2", "dCSWSignature must be 53425355h.", csw_signature),
    Check("csw-tag", "BOT 5.2", "dCSWTag must be equal to dCBWTag, for any value.", csw_tag),
    Check(
        "csw-meaningful",
        "BOT 6.3.2",
        "The status of a valid command must be 0 or 1, and the residue must not exceed the announced length.",
        csw_meaningful,
    ),
    Check(
        "residue-short-inquiry",
        "BOT 5.2",
        "The residue of INQUIRY with 255 bytes must be 255 less the length of the INQUIRY data.",
        residue_of_less,
    ),
    Check(
        "residue-short-sense",
        "BOT 5.2",
        "The residue of REQUEST SENSE with 252 bytes must be 252 less the length of the sense data.",
        residue_of_sense,
    ),
    Check("residue-full", "BOT 5.2", "The residue must be 0 when all announced data was transferred.", residue_of_all),
    Check(
        "residue-failed",
        "BOT 5.2",
        "When a command fails before its data phase, the residue must be the announced length.",
        residue_of_failure,
    ),
    Check(
        "cbw-direction",
        "BOT 5.1",
        "The device must ignore the direction bit of a CBW that announces no data.",
        direction_ignored,
    ),
    Check("cbw-padding", "BOT 5.1", "The device must ignore the bytes after the CDB in a CBW.", padding_ignored),
    Check(
        "cbw-signature",
        "BOT 6.6.1",
        "After a CBW with a wrong signature, bulk-in must stall until reset recovery.",
        partial(invalid, WRONG_SIGNATURE),
    ),
    Check(
        "cbw-short",
        "BOT 6.6.1",
        "After a CBW of 30 bytes, bulk-in must stall until reset recovery.",
        partial(invalid, TOO_SHORT),
    ),
    Check(
        "cbw-long",
        "BOT 6.6.1",
        "After a CBW of 32 bytes, bulk-in must stall until reset recovery.",
        partial(invalid, TOO_MUCH),
    ),
    Check(
        "cbw-meaningless",
        "BOT 6.2.2",
        "After a CBW with reserved bits set or an invalid CDB length, reset recovery must work.",
        meaningless,
    ),
    Check(
        "cbw-lun",
        "BOT 6.2.2",
        "After a CBW to a LUN that does not exist, reset recovery must work, and INQUIRY must report no unit there.",
        no_such_lun,
    ),
    Check("cdb-16", "BOT 5.1", "Commands of 16 bytes must be executed or refused with a valid CSW.", cdb_16),
)
