"""The values of the device seam."""

from __future__ import annotations

import pytest

from scsiusb.usb.backend import Code, Device, Endpoint


@pytest.mark.parametrize(
    ("bus", "ports", "address"),
    [(2, (1,), "2-1"), (1, (1, 4), "1-1.4"), (10, (3, 2, 1, 12), "10-3.2.1.12"), (3, (), "usb3")],
)
def test_a_device_has_the_address_that_the_kernel_prints(bus: int, ports: tuple[int, ...], address: str) -> None:
    assert Device(bus, ports, 5, 0, 0, 0, "high", 1, ()).address == address


@pytest.mark.parametrize(
    ("address", "attributes", "is_in", "is_out"),
    [
        (0x81, 0x02, True, False),
        (0x02, 0x02, False, True),
        (0x80, 0x02, True, False),
        (0x81, 0x03, False, False),  # interrupt
        (0x02, 0x01, False, False),  # isochronous
        (0x81, 0xFE, True, False),  # only bits 1..0 are the transfer type
    ],
)
def test_a_bulk_endpoint_is_told_by_its_type_and_direction(
    address: int, attributes: int, is_in: bool, is_out: bool
) -> None:
    endpoint = Endpoint(address, attributes, 512)
    assert (endpoint.is_bulk_in, endpoint.is_bulk_out) == (is_in, is_out)


@pytest.mark.parametrize("value", [-13, -98, -1000, 1])
def test_a_code_that_libusb_has_and_we_do_not_is_other(value: int) -> None:
    assert Code(value) is Code.OTHER
