"""Command and status wrappers: what a device makes of a CBW, and whether its CSW is valid and meaningful."""

from __future__ import annotations

from functools import partial
from typing import Final

from scsiusb.conformance.device_under_test import DeviceUnderTest
from scsiusb.conformance.exchange import ExchangeResult, Raw, Request, words_of
from scsiusb.conformance.outcome import Check, NotApplicable, Violation
from scsiusb.errors import TransferStalled
from scsiusb.scsi.commands.sbc import TOO_LARGE_FOR_10, Read10, Read16, ReadCapacity10
from scsiusb.scsi.commands.spc import Inquiry, RequestSense, TestUnitReady
from scsiusb.scsi.pages.inquiry import ADDITIONAL_LENGTH
from scsiusb.transport.base import FAILED, Direction
from scsiusb.transport.bot.formats import CBW_CODEC, CSW_CODEC, CSW_SIGNATURE, FLAG_DATA_IN, MAX_LUN
from scsiusb.usb.backend import Code

TAGS: Final = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x55534253)  # the last: "SBSU"
MOST: Final = 255
CDB_LENGTH_6: Final = 6
FLAGS_AT, LUN_AT, LENGTH_AT, CDB_AT = 12, 13, 14, 15  # in a CBW
TOO_LONG: Final = 17


# --- the CSW ----------------------------------------------------------------------------------------


def csw_length(device: DeviceUnderTest) -> str:
    """More bytes than 13 would come in the same packet, or be there to be read behind it."""
    for request in (TestUnitReady(), Inquiry()):
        ended = device.exchange.command(request)
        ended.require(ended.cbw is Code.OK and ended.csw_code is Code.OK, "a CSW")
        ended.require(len(ended.csw) == CSW_CODEC.length, "13 bytes in one short packet")
        if ended.empties:
            raise Violation(ended.asked, "a packet without data before the CSW", "the CSW at once")
    return "13 bytes"


def csw_signature(device: DeviceUnderTest) -> str:
    for request in (TestUnitReady(), Inquiry(), _refused()):
        ended = device.run(request)
        signature = ended.fields[0]
        if signature != CSW_SIGNATURE:
            raise Violation(ended.asked, f"signature {signature.hex(' ')}", CSW_SIGNATURE.hex(" "))
    return CSW_SIGNATURE.hex(" ")


def csw_tag(device: DeviceUnderTest) -> str:
    for tag in TAGS:
        for request in (TestUnitReady(), Inquiry()):
            ended = device.run(request, tag=tag)
            if ended.fields[1] != tag:
                raise Violation(f"{ended.asked}, tag {tag:08X}h", f"tag {ended.fields[1]:08X}h", "the same tag")
    return "echoed: " + ", ".join(f"{tag:X}h" for tag in TAGS)


def csw_meaningful(device: DeviceUnderTest) -> str:
    for request in (TestUnitReady(), Inquiry(), Inquiry(length=MOST), RequestSense(), _refused()):
        ended = device.run(request)
        ended.require(ended.residue <= ended.length, f"a residue of at most {ended.length}")
        ended.require(ended.status <= FAILED, "status 0 or 1")
    return "status 0 or 1, no residue above what was announced"


def _refused() -> Request:
    return Raw("INQUIRY of page 80h without EVPD", bytes((0x12, 0, 0x80, 0, 36, 0)), 36)


def csw_at_once(device: DeviceUnderTest) -> str:
    """Data that ends with a short packet needs no other end."""
    requests: list[Request] = [Raw("INQUIRY of 36 bytes", Inquiry().cdb(), MOST), _refused()]
    if device.is_ready:
        last = device.capacity.last_lba
        kind = Read10 if last < TOO_LARGE_FOR_10 else Read16
        requests.append(kind(last, 2, block_size=device.block_size))
    for request in requests:
        ended = device.run(request)
        if ended.moved % device.exchange.port.bulk_in.max_packet_size and ended.empties:
            raise Violation(ended.asked, f"{ended.moved} bytes, a packet without data, the CSW", "the CSW at once")
        if ended.is_failed:
            device.sense()
    return "the CSW comes next"


def residue_of_less(device: DeviceUnderTest) -> str:
    ended = device.good(Inquiry(length=MOST))
    if len(ended.data) <= ADDITIONAL_LENGTH:
        raise NotApplicable(f"INQUIRY gave {len(ended.data)} bytes")
    there = min(ended.data[ADDITIONAL_LENGTH] + ADDITIONAL_LENGTH + 1, MOST)
    ended.require(ended.residue == MOST - there, f"residue {MOST - there}: there are {there} bytes of INQUIRY data")
    return f"{ended.asked}: {ended.words}"


def residue_of_sense(device: DeviceUnderTest) -> str:
    ended = device.good(RequestSense(length=252))
    if len(ended.data) < 8 or ended.data[0] & 0x7F not in (0x70, 0x71):
        raise NotApplicable("the sense data is not in fixed format")
    there = ended.data[7] + 8
    ended.require(ended.residue == 252 - there, f"residue {252 - there}: there are {there} bytes of sense data")
    return f"{ended.asked}: {ended.words}"


def residue_of_all(device: DeviceUnderTest) -> str:
    requests: list[Request] = [Inquiry()]
    if device.is_ready:
        requests += [ReadCapacity10(), device.reading(0, 1)]
    for request in requests:
        ended = device.good(request)
        ended.require(ended.moved == ended.length, f"{ended.length} bytes")
        ended.require(ended.residue == 0, "residue 0: all the data came")
    return "residue 0: " + ", ".join(map(str, requests))


def residue_of_failure(device: DeviceUnderTest) -> str:
    """A command that failed before its data has all of it as residue, unless data came."""
    ended = device.run(_refused())
    ended.require(ended.is_failed, "status 1")
    ended.require(ended.residue == ended.length, f"residue {ended.length}: nothing relevant was sent")
    return f"{ended.asked}: {ended.words}"


# --- the CBW ----------------------------------------------------------------------------------------


def direction_ignored(device: DeviceUnderTest) -> str:
    for flags in (0, FLAG_DATA_IN):
        ended = device.run(TestUnitReady(), flags=flags)
        ended.require(ended.status <= FAILED, "status 0 or 1: the direction of no data means nothing")
    return "bmCBWFlags 00h and 80h are the same to a command without data"


def padding_ignored(device: DeviceUnderTest) -> str:
    block = TestUnitReady().cdb()
    plain = device.run(TestUnitReady())
    ended = device.run(Raw("TEST UNIT READY with FFh behind its 6 bytes", block.ljust(16, b"\xff")), cdb_length=6)
    ended.require(ended.status == plain.status, f"status {plain.status}, as with zeros")
    return "bytes behind bCBWCBLength mean nothing"


def invalid(change: str, device: DeviceUnderTest) -> str:
    """BOT 6.6.1: bulk-in stalls, bulk-out stalls or discards, until reset recovery."""
    exchange = device.exchange
    packet = _broken(device, change)
    asked = f"a CBW {change}"
    code, _ = exchange.send(packet, "cbw")
    if code not in (Code.OK, Code.PIPE):
        raise Violation(asked, words_of(code), "that it is taken, or STALL")
    first = exchange.receive(exchange.port.bulk_in.max_packet_size, "csw")
    if first[0] is not Code.PIPE:
        raise Violation(asked, f"bulk-in: {words_of(first[0]) or first[1].hex(' ')}", "STALL of bulk-in")
    exchange.clear_halt_in()
    again = exchange.receive(exchange.port.bulk_in.max_packet_size, "csw")
    if again[0] is not Code.PIPE:
        came = f"bulk-in, its halt cleared: {words_of(again[0]) or again[1].hex(' ')}"
        raise Violation(asked, came, "STALL again, until reset recovery")
    exchange.reset_recovery()
    device.run(TestUnitReady())
    device.run(Inquiry())
    return "bulk-in stalls until reset recovery, and commands go on behind it"


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
    """What the device does then is its own affair (BOT 6.2.2), if only it can be recovered."""
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
    return "whatever it says to them, it recovers"


def _send_and_recover(device: DeviceUnderTest, asked: str, packet: bytes) -> None:
    assert len(packet) == CBW_CODEC.length
    device.exchange.send(packet, "cbw")
    try:
        device.exchange.reset_recovery()
    except TransferStalled:
        raise Violation(f"reset recovery after {asked}", "STALL", "recovery") from None
    ended: ExchangeResult = device.exchange.command(Inquiry())
    if not ended.is_good:
        raise Violation(f"{asked}, reset recovery, INQUIRY", ended.words, "status 0")


def no_such_lun(device: DeviceUnderTest) -> str:
    lun = device.max_lun + 1
    if lun > MAX_LUN:
        raise NotApplicable("the device has all 16 logical units")
    packet = device.exchange.cbw(TestUnitReady(), 0, Direction.NONE, lun=lun)
    _send_and_recover(device, f"a CBW to LUN {lun}, which there is not", packet)
    ended = device.exchange.command(Inquiry(), lun=lun)
    if ended.has_csw and ended.is_good and ended.data[:1] and ended.data[0] >> 5 != 3:
        raise Violation(ended.asked, f"{ended.words}, peripheral {ended.data[0]:02X}h", "peripheral qualifier 3")
    return f"LUN {lun}: {ended.words}"


def cdb_16(device: DeviceUnderTest) -> str:
    """SERVICE ACTION IN(16): READ CAPACITY(16), and a service action that there is not."""
    said = []
    for action in (0x10, 0x00):
        block = bytes((0x9E, action)) + bytes(11) + b"\x20" + bytes(2)
        ended = device.run(Raw(f"command 9Eh/{action:02X}h of 16 bytes", block, 32))
        ended.require(ended.status <= FAILED, "status 0 or 1")
        said.append(f"9Eh/{action:02X}h: status {ended.status}")
    return ", ".join(said)


IN: Final = "BOT 6.7.2"
CHECKS: Final = (
    Check("csw-length", "BOT 5.3.3", "The CSW is exactly 13 bytes, in a packet of its own.", csw_length),
    Check("csw-at-once", "BOT 5.3.3", "Behind data that a short packet ended, the CSW comes next.", csw_at_once),
    Check("csw-signature", "BOT 5.2", "dCSWSignature is 53425355h.", csw_signature),
    Check("csw-tag", "BOT 5.2", "dCSWTag is the CBW's tag, whatever its value.", csw_tag),
    Check(
        "csw-meaningful",
        "BOT 6.3.2",
        "The status is 0 or 1 where both agree, and no residue exceeds what was announced.",
        csw_meaningful,
    ),
    Check(
        "residue-short-inquiry",
        "BOT 5.2",
        "The residue of INQUIRY with 255 bytes is what INQUIRY does not have.",
        residue_of_less,
    ),
    Check(
        "residue-short-sense",
        "BOT 5.2",
        "The residue of REQUEST SENSE with 252 bytes is what it does not have.",
        residue_of_sense,
    ),
    Check("residue-full", "BOT 5.2", "The residue is 0 where all data came.", residue_of_all),
    Check(
        "residue-failed",
        "BOT 5.2",
        "A command that fails before its data has all of it as residue.",
        residue_of_failure,
    ),
    Check("cbw-direction", "BOT 5.1", "The direction bit of a CBW without data is ignored.", direction_ignored),
    Check("cbw-padding", "BOT 5.1", "What stands behind the CDB in a CBW is ignored.", padding_ignored),
    Check(
        "cbw-signature",
        "BOT 6.6.1",
        "A CBW with a wrong signature: bulk-in stalls until reset recovery.",
        partial(invalid, WRONG_SIGNATURE),
    ),
    Check(
        "cbw-short", "BOT 6.6.1", "A CBW of 30 bytes: bulk-in stalls until reset recovery.", partial(invalid, TOO_SHORT)
    ),
    Check(
        "cbw-long", "BOT 6.6.1", "A CBW of 32 bytes: bulk-in stalls until reset recovery.", partial(invalid, TOO_MUCH)
    ),
    Check(
        "cbw-meaningless",
        "BOT 6.2.2",
        "After a CBW with reserved bits or an illegal CDB length, reset recovery works.",
        meaningless,
    ),
    Check(
        "cbw-lun",
        "BOT 6.2.2",
        "After a CBW to a LUN that there is not, reset recovery works, and INQUIRY shows no unit there.",
        no_such_lun,
    ),
    Check("cdb-16", "BOT 5.1", "Commands of 16 bytes are carried out or refused, in step.", cdb_16),
)
