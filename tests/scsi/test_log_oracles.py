"""Log pages with random contents, decoded by us and by sg_logs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from scsiusb.scsi.pages.log import LogPage, LogParameter
from tests.programs import needs

RUNS = 500
COUNTERS = (
    "Errors corrected without substantial delay",
    "Errors corrected with possible delays",
    "Total rewrites or rereads",
    "Total errors corrected",
    "Total times correction algorithm processed",
    "Total bytes processed",
    "Total uncorrected errors",
)
CYCLES = {
    3: "Specified cycle count over device lifetime",
    4: "Accumulated start-stop cycles",
    5: "Specified load-unload count over device lifetime",
    6: "Accumulated load-unload cycles",
}
DATES = {1: "Date of manufacture", 2: "Accounting date"}
ATTACHED = {0: "no device attached", 1: "SAS or SATA device", 2: "expander device", 3: "expander device (fanout)"}
RATES = {8: "1.5 Gbps", 9: "3 Gbps", 0xA: "6 Gbps", 0xB: "12 Gbps"}
RESOURCES = {
    1: "Available LBA mapping threshold resource count",
    2: "Used LBA mapping threshold resource count",
    0x100: "De-duplicated LBA resource count",
    0x101: "Compressed LBA resource count",
    0x102: "Total efficiency LBA resource count",
}
STATISTICS = {
    "reads": "number of read commands",
    "writes": "number of write commands",
    "blocks_received": "number of logical blocks received",
    "blocks_transmitted": "number of logical blocks transmitted",
    "read_intervals": "read command processing intervals",
    "write_intervals": "write command processing intervals",
    "weighted_commands": "weighted number of read commands plus write commands",
    "weighted_intervals": "weighted read command processing plus write command processing",
}
STATES = {1: "active", 2: "idle_a", 3: "idle_b", 4: "idle_c", 8: "standby_z", 9: "standby_y"}
LENGTHS: dict[int, dict[int, int]] = {  # of each parameter of a page, by its code
    0x02: dict.fromkeys(range(7), 8),
    0x03: dict.fromkeys(range(7), 4),
    0x05: dict.fromkeys(range(7), 8),
    0x06: {0: 4},
    0x0C: dict.fromkeys((1, 2, 3, 0x100, 0x101, 0x102), 8),
    0x0D: {0: 2, 1: 2},
    0x0E: {1: 6, 2: 6, **dict.fromkeys(CYCLES, 4)},
    0x10: dict.fromkeys(range(1, 21), 16),
    0x11: {1: 4},
    0x15: {0: 12, 1: 20, 2: 20, 0x800: 20},
    0x18: {1: 4 + 48, 2: 4 + 2 * 48},
    0x19: {1: 64, 2: 8, 3: 8},
    0x1A: dict.fromkeys(STATES, 4),
    0x2F: {0: 4},
}


def made(page: int, random: Random) -> bytes:
    parameters = []
    for code, length in LENGTHS[page].items():
        value = bytearray(random.randbytes(length))
        if page in (0x0D, 0x2F):  # what sg_logs shows as a number: not 0, not 255
            value[-1], value[2 % length] = random.randrange(1, 100), random.randrange(1, 100)
        if page == 0x10:
            value[0] = value[0] or 0x21  # a test that was done
        if page == 0x15:
            value[0] &= 0x7F  # which sg_logs shows with a sign
        if page == 0x0E and length == 6:
            value[:] = b"%04d%02d" % (random.randrange(10000), random.randrange(100))
        if page == 0x18:
            value[0], value[3] = value[0] & 0xF0 | 6, length // 48
            for at in range(4, length, 48):
                value[at + 3] = 44
        if page == 0x11:
            value[3] = random.randrange(256)
        parameters.append(code.to_bytes(2, "big") + bytes((3, length)) + bytes(value))
    body = b"".join(parameters)
    return bytes((page, 0)) + len(body).to_bytes(2, "big") + body


def expected(page: int, parameter: LogParameter) -> Iterator[str]:  # noqa: C901 - a table
    """Yield what sg_logs must print of a parameter, in order."""
    code, values = parameter.code, parameter.values
    match page:
        case 0x02 | 0x03 | 0x05:
            yield f"{COUNTERS[code]} = {values['value']}"
        case 0x06:
            yield f"Non-medium error count = {values['value']}"
        case 0x0C if code == 3:
            yield f"Available provisioning resource percentage: {values['percent']} %"
        case 0x0C:
            yield f"{RESOURCES[code]}: {values['count']}"
        case 0x0D:
            yield f"{('Current', 'Reference')[code]} temperature = {values['celsius']} C"
        case 0x0E if code in DATES:
            yield f"{DATES[code]}, year: {values['year']:04}, week: {values['week']:02}"
        case 0x0E:
            yield f"{CYCLES[code]} = {values['value']}"
        case 0x10:
            yield f"Parameter code = {code}, accumulated power-on hours = {values['hours']}"
            yield f"[{values['kind']}]"
            yield f"[{values['result']}]"
            if values["number"]:
                yield f"self-test number = {values['number']}"
            if values["lba"] != (1 << 64) - 1 and 0 < values["result"] < 0xF:
                yield f"address of first error = {values['lba']:#x}"
            if values["sense_key"]:
                yield f"sense key = {values['sense_key']:#x}"
                yield f"asc = {values['asc']:#x}, ascq = {values['ascq']:#x}"
        case 0x11:
            yield f"Percentage used endurance indicator: {values['percent_used']} %"
        case 0x15 if code == 0:
            yield f"Accumulated power on minutes: {values['minutes']}"
            yield f"Number of background scans performed: {values['scans']}"
            yield f"Background medium scan progress: {values['progress'] * 100 / 65536:.2f} %"
            yield f"Number of background medium scans performed: {values['medium_scans']}"
        case 0x15:
            yield f"Medium scan parameter # {code}"
            yield f"Power on minutes when error detected: {values['minutes']}"
            yield f"[sk,asc,ascq: {values['sense_key']:#x},{values['asc']:#x},{values['ascq']:#x}]"
            yield f"LBA (associated with medium error): 0x{values['lba']:016x}"
        case 0x18:
            yield f"relative target port id = {code}"
            yield f"generation code = {values['generation']}"
            yield f"number of phys = {values['phys']}"
            for phy in parameter.entries:
                yield from expected_of_phy(phy)
        case 0x19 if code == 1:
            yield from (f"{STATISTICS[name]} = {value}" for name, value in values.items())
        case 0x19 if code == 2:
            yield f"idle time intervals = {values['intervals']}"
        case 0x19:
            yield f"time interval negative exponent = {values['negative_exponent']}"
            yield f"time interval integer = {values['integer']}"
        case 0x1A:
            yield f"Accumulated transitions to {STATES[code]} = {values['value']}"
        case 0x2F:
            yield f"IE asc = {values['asc']:#x}, ascq = {values['ascq']:#x}"
            if values["asc"] == 0:
                yield f"Current temperature = {values['celsius']} C"


def expected_of_phy(phy: dict[str, int]) -> Iterator[str]:
    yield f"phy identifier = {phy['phy']}"
    yield f"attached SAS device type: {ATTACHED.get(phy['attached_type'], 'reserved')}"
    yield f"negotiated logical link rate: {RATES.get(phy['link_rate'], '')}"
    for role in ("initiator", "target"):
        bits = (f"{kind}={phy[f'attached_{kind}_{role}']}" for kind in ("ssp", "stp", "smp"))
        yield f"attached {role} port: {' '.join(bits)}"
    yield f"SAS address = {phy['address']:#x}"
    yield f"attached SAS address = {phy['attached_address']:#x}"
    yield f"attached phy identifier = {phy['attached_phy']}"
    yield f"Invalid DWORD count = {phy['invalid_dwords']}"
    yield f"Running disparity error count = {phy['disparity_errors']}"
    yield f"Loss of DWORD synchronization count = {phy['losses_of_synchronization']}"
    yield f"Phy reset problem count = {phy['reset_problems']}"


def sg_logs(path: Path) -> str:
    done = subprocess.run(["sg_logs", f"--in={path}"], capture_output=True, check=True, timeout=60)
    return done.stdout.decode(errors="replace")


@pytest.mark.slow
@needs("sg_logs")
@pytest.mark.parametrize("page", LENGTHS, ids="{:02X}h".format)
def test_sg_logs_reads_what_we_read(page: int, tmp_path: Path) -> None:
    random, path = Random(page), tmp_path / "page"
    for _ in range(RUNS):
        data = made(page, random)
        path.write_text(data.hex(" "))
        ours = LogPage.parse(data)
        assert (not ours.problems, [each.code for each in ours.parameters]) == (True, list(LENGTHS[page]))
        theirs, at = sg_logs(path), 0
        for parameter in ours.parameters:
            for phrase in expected(page, parameter):
                at = theirs.find(phrase, at)
                assert at >= 0, (phrase, data.hex(), theirs)


PHY = "00 03 00 2c 10 09 08 02" + "5000c50001020304" + "5000111122223333" + "07" + "00" * 7 + "00000005" + "00" * 12


def test_the_phys_of_a_sas_port_are_shown_as_far_as_they_go() -> None:
    value = bytes.fromhex("06 00 05 02" + PHY * 2)
    for end in range(4, len(value) + 1):
        cut = value[:end]
        page = LogPage.parse(bytes((0x18, 0, 0, 4 + end, 0, 1, 3, end)) + cut)
        (port,) = page.parameters
        assert (port.name, port.values["phys"]) == ("port_1", 2)
        assert len(port.entries) == (0 if end < 8 else 1 if end < 56 else 2)
        assert bool(page.problems) == (end not in (4, 52, 100))
    first, second = port.entries
    assert first == second
    assert (first["phy"], first["address"], first["link_rate"]) == (3, 0x5000C50001020304, 9)
    assert (first["attached_ssp_initiator"], first["attached_smp_target"], first["invalid_dwords"]) == (1, 1, 5)


def test_a_port_of_another_protocol_has_no_phys() -> None:
    (port,) = LogPage.parse(bytes.fromhex("18 00 00 0c 00 02 03 08 00 00 00 01 11 22 33 44")).parameters
    assert (port.name, port.values["protocol"], port.entries) == ("port_2", 0, ())


def test_a_date_that_was_not_set_is_left_out() -> None:
    (date,) = LogPage.parse(bytes.fromhex("0e 00 00 0a 00 02 01 06 32 30 31 31 20 20")).parameters
    assert (date.name, date.values) == ("accounting", {"year": 2011})
