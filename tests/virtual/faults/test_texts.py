"""Invalid descriptors as a host reads them, and the text form of faults."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scsiusb.usb.backend import Code, Device, Endpoint, Setting, UsbError
from scsiusb.virtual import Bus, Fault, Memory, Stick, Unit, bot_interface, hid_interface
from scsiusb.virtual.device.descriptors import InterfaceDescriptor, parse_settings
from scsiusb.virtual.faults.descriptor_faults import DESCRIPTOR_FAULTS, find
from tests.deadlines import within
from tests.virtual.faults.faulty import (
    SOON,
    covers,
    faults,
)
from tests.virtual.host import IN, OUT

# --- descriptors ---------------------------------------------------------------------------------


def plugged(error: str, *interfaces: InterfaceDescriptor) -> tuple[Bus, Device]:
    bus = Bus()
    return bus, bus.plug(Stick([Unit(Memory(4096))], interfaces=interfaces, faults=[f"descriptor={error}"]))


def configuration(bus: Bus) -> bytes:
    handle = bus.open(bus.devices()[0])
    try:
        return handle.control_in(0x80, 6, 0x0200, 0, 0xFFFF, SOON)
    finally:
        handle.close()


WHOLE = (Endpoint(IN, 2, 512), Endpoint(OUT, 2, 512))


@covers("descriptor")
@pytest.mark.parametrize(
    ("error", "endpoints"),
    [
        ("truncated", (WHOLE[0],)),
        ("long-total-length", WHOLE),
        ("short-total-length", None),
        ("zero-length-descriptor", ()),
        ("overlong-descriptor", None),
        ("no-endpoints", ()),
        ("endpoint-count", WHOLE),
        ("endpoint-zero-packet", (Endpoint(IN, 2, 0), Endpoint(OUT, 2, 0))),
        ("duplicate-endpoints", (WHOLE[0], WHOLE[0])),
        ("wrong-types", (Endpoint(IN, 3, 512), Endpoint(OUT, 3, 512))),
        ("interface-count", WHOLE),
    ],
)
def test_a_host_reads_the_valid_part_of_an_invalid_configuration(
    error: str, endpoints: tuple[Endpoint, ...] | None
) -> None:
    bus, device = plugged(error)
    assert device.settings == (() if endpoints is None else (Setting(0, 0, 8, 6, 0x50, endpoints),))
    assert configuration(bus) != configuration(Bus(Stick.formatted()))


@pytest.mark.parametrize("seed", range(50))
def test_a_bus_survives_a_configuration_of_random_bytes(seed: int) -> None:
    bus, device = plugged(f"garbage:{seed}", bot_interface(), hid_interface(1))
    assert len(configuration(bus)) == len(
        configuration(Bus(Stick([Unit()], interfaces=[bot_interface(), hid_interface(1)])))
    )
    handle = bus.open(device)
    for setting in device.settings:
        if handle.driver_active(setting.interface):
            handle.detach_driver(setting.interface)
        handle.claim(setting.interface)
        for endpoint in setting.endpoints:
            code, _ = handle.bulk(endpoint.address, memoryview(bytearray(16)), within(1))
            assert code is not Code.OK
    bus.close()


@pytest.mark.parametrize(
    ("error", "serial"),
    [
        ("huge-string", ("0123456789AB" * 11)[:126]),
        ("odd-string", "0123456789A"),
        ("surrogate-string", "\ufffd" * 12),
        ("empty-string", ""),
    ],
)
def test_a_host_reads_the_valid_part_of_an_invalid_string(error: str, serial: str) -> None:
    bus, device = plugged(error)
    assert bus.strings(device).serial == serial
    assert device.settings[0].endpoints == WHOLE


def test_a_descriptor_fault_does_not_create_missing_descriptors() -> None:
    bus, device = plugged("empty-string")
    with pytest.raises(UsbError):
        bus.open(device).control_in(0x80, 6, 0x0309, 0x0409, 255, SOON)


@given(st.binary(max_size=120))
def test_any_bytes_can_be_parsed_as_a_configuration(data: bytes) -> None:
    for setting in parse_settings(data):
        assert len(setting.endpoints) <= len(data)


@given(st.binary(min_size=9, max_size=120), st.sampled_from(sorted(DESCRIPTOR_FAULTS)))
def test_a_descriptor_fault_accepts_any_descriptor(data: bytes, name: str) -> None:
    for start in (data, data[:2], bytes((9, 2)) + data):
        assert find(name)[1](start) is not None


# --- text ----------------------------------------------------------------------------------------


@given(faults())
def test_a_fault_survives_conversion_to_text_and_back(fault: Fault) -> None:
    assert Fault.parse(str(fault)) == fault
    assert str(Fault.parse(str(fault))) == str(fault)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("stall", "stall@data"),
        ("stall@data", "stall@data"),
        (" nak@csw , opcode=2a ", "nak@csw,opcode=2A"),
        ("stall=0x200@data,command=3", "stall=512@data,command=3"),
        ("delay=.5", "delay=0.5@data"),
        ("status=2@csw,lba=5-5,times=1", "status=2,lba=5"),
        ("sense=5/24/0", "sense=5/24/00"),
        ("capacity=+1,times=always", "capacity=+1"),
        ("halt-stays=2", "halt-stays,times=2"),
        ("no-sense,cdb=2a..ff", "no-sense,cdb=2A..FF"),
    ],
)
def test_a_text_has_one_canonical_form(text: str, canonical: str) -> None:
    assert str(Fault.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown fault ''"),
        ("stal", "unknown fault 'stal'; did you mean stall?"),
        ("zzzzz", "unknown fault 'zzzzz'; use stall, nak,"),
        ("@csw", "unknown fault"),
        ("stall@", "no phase after @ in 'stall@'; use data, csw or cbw"),
        ("eject@", "no phase after @ in 'eject@'; leave out the @"),
        ("stall@cbw@csw", "stall has no phase 'cbw@csw'; use data, csw or cbw"),
        ("stall=", "a number of bytes"),
        ("stall=-1", "a number of bytes"),
        ("stall=x", "a number of bytes"),
        ("stall=5@csw", "stall=N is only possible in the data phase"),
        ("short=13@csw", "0 to 12"),
        ("nak=3", "takes no value"),
        ("status@csw", "needs a value"),
        ("status=256", "from 0 to 255"),
        ("signature=123", "eight hexadecimal digits"),
        ("residue=4294967296", "32 bits"),
        ("sense=5/24", "three hexadecimal numbers"),
        ("sense=10/24/00", "three hexadecimal numbers"),
        ("case=14", "from 1 to 13"),
        ("capacity=1", "with its sign"),
        ("delay=inf", "seconds"),
        ("delay=nan", "seconds"),
        ("tag@data", "tag has no phase 'data'; use csw"),
        ("eject@csw", "leave out '@csw'"),
        ("reset-stalls,opcode=28", "leave out opcode"),
        ("descriptor=nonsense", "truncated"),
        ("descriptor=truncated:5", "truncated"),
        ("nak,command=0", "1 or more"),
        ("nak,opcode=100", "two hexadecimal digits"),
        ("nak,opcode", "two hexadecimal digits"),
        ("nak,lba=9-3", "a range N-M"),
        ("nak,lun=16", "from 0 to 15"),
        ("nak,cdb=xx", "hexadecimal digits"),
        ("nak,times=0", "always"),
        ("nak,times=often", "always"),
        ("nak,lun=1,lun=1", "twice"),
        ("nak,when=now", "unknown condition 'when'; use command, opcode,"),
        ("nak,", "unknown condition ''"),
    ],
)
def test_an_invalid_text_is_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Fault.parse(text)


@given(st.one_of(st.text(max_size=40), st.text("stalnkceobvwd=@,.-/0123456789 ", max_size=40)))
def test_any_text_is_parsed_or_raises_value_error(text: str) -> None:
    try:
        fault = Fault.parse(text)
    except ValueError:
        return
    assert Fault.parse(str(fault)) == fault


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Fault("stall", "many"),
        lambda: Fault("status", -1),
        lambda: Fault("nak", 1),
        lambda: Fault("nak", opcode=256),
        lambda: Fault("nak", lba=(5, 1)),
        lambda: Fault("nak", times=1.5),
        lambda: Fault("nak", times=-1),
        lambda: Fault("capacity", "x"),
        lambda: Stick.formatted(faults=["nonsense"]),
    ],
)
def test_a_fault_that_is_not_parsed_from_text_is_checked_too(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        wrong()
