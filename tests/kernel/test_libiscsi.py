"""libiscsi's tests of SCSI devices (iscsi-test-cu), on the kernel's node of the virtual stick over USB/IP.

Those that are for iSCSI alone are skipped by the tool: they send task management, or from a second initiator.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scsiusb.virtual import Identity, Memory, Stick, Unit

from .machine import wait_for
from .mounting import tool
from .served import serving

pytestmark = pytest.mark.native("hundreds of thousands of commands")
SIZE = 64 << 20
TEST = re.compile(r"^  Test: (\S+) \.\.\.", re.MULTILINE)
SUITE = re.compile(r"^Suite: (\S+)", re.MULTILINE)
FIXED: dict[str, Any] = {"thin": True, "removable": False, "copies": True, "maximum_transfer": 0xFFFF}
ALL_BUT_SANITIZE = (
    "ReceiveCopyResults",  # before the copies of others, whose results it would find
    *("CompareAndWrite", "ExtendedCopy", "GetLBAStatus", "Inquiry", "Mandatory", "ModeSense6", "OrWrite"),
    *("Prefetch10", "Prefetch16", "PrinReadKeys", "PrinServiceactionRange", "PrinReportCapabilities"),
    *("ProutRegister", "ProutReserve", "ProutClear", "ProutPreempt", "Read6", "Read10", "Read12", "Read16"),
    *("ReadCapacity10", "ReadCapacity16", "ReadDefectData10", "ReadDefectData12"),
    *("ReportSupportedOpcodes", "Reserve6", "StartStopUnit", "TestUnitReady", "Unmap", "Verify10", "Verify12"),
    *("Verify16", "Write10", "Write12", "Write16", "WriteAtomic16", "WriteSame10", "WriteSame16"),
    *("WriteVerify10", "WriteVerify12", "WriteVerify16"),
)
SANITIZE = ("BlockErase", "CryptoErase", "ExitFailureMode", "InvalidServiceAction", "Overwrite")
"""The others of the suite end the tool: it has no iSCSI session to send them by."""
RUNS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {  # the unit, and the suites or tests
    "fixed": (FIXED, ALL_BUT_SANITIZE),
    "sanitize": (FIXED, tuple(f"Sanitize.{name}" for name in SANITIZE)),
    "removable": ({**FIXED, "removable": True}, ("NoMedia", "StartStopUnit", "PreventAllow")),
    "read-only": ({**FIXED, "write_protected": True}, ("ReadOnly",)),
    "large physical blocks": ({**FIXED, "physical_exponent": 3}, ("WriteSame10", "WriteSame16")),
}
NO_OTHER_LENGTH = "sends more or less than one block, which Bulk-Only Transport reports as a residue or a phase error"
FAILING = {  # what does not pass, and who is right
    "Inquiry.BlockLimits": "wants a version descriptor of SBC-3 in the INQUIRY data, which SPC-4 leaves to the device",
    "PreventAllow.Eject": "wants a load to be refused while removal is prevented; SPC-4 6.16 prevents removal only",
    "ProutRegister.Simple": "wants the status RESERVATION CONFLICT, which Bulk-Only Transport cannot carry",
    "StartStopUnit.NoLoej": "wants a stopped unit to be ready; by SBC-3 4.16 it needs an initializing command",
    "StartStopUnit.PwrCnd": "wants success of reserved power conditions (SBC-3 table 62)",
    "StartStopUnit.Simple": "wants no unit attention after a load, which SPC-4 5.14 demands (28h/00h)",
    "WriteSame10.UnmapUntilEnd": "wants ones to be unmapped, which read as zeros; by SBC-3 4.7.3.4 they are written",
    "WriteSame10.InvalidDataOutSize": NO_OTHER_LENGTH,
    "WriteSame16.InvalidDataOutSize": NO_OTHER_LENGTH,
    "WriteSame16.Unmap": "reads the 65,536 blocks that the unit may write at once, more than Linux's sg takes",
}
NOT_RUN = {  # beside those that are for iSCSI alone
    "CompareAndWrite.InvalidDataOutSize": "for iSCSI, too, but it says so only of a unit with large physical blocks",
    "ReportSupportedOpcodes.OneCommand": "takes the refusal that it provokes for that of the whole command",
    "WriteAtomic16.VPD": "runs but for two parts, for units that restrict the alignment and the granularity",
}
LEAST_RUN = 177


def await_open_door(unit: Unit) -> None:
    """Wait until nobody has the node open, for whom the kernel locks the door."""
    tool("udevadm", "settle")
    wait_for(lambda: not unit.prevented, "the kernel to have closed the node")


def run(there: Path, name: str) -> dict[str, str]:
    """Run a suite, or a test; return what the tool said of each test."""
    words = ["iscsi-test-cu", "--dataloss", "--allow-sanitize", f"--test=SCSI.{name}", "-V", str(there)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert "Run Summary" in done.stdout, f"{name}: the tool ended with {done.returncode}: {done.stdout[-500:]}"
    suite = SUITE.search(done.stdout)
    assert suite is not None
    parts = TEST.split(done.stdout)
    return {f"{suite[1]}.{test}": text for test, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.timeout(600)
def test_each_test_passes_or_is_known_not_to() -> None:
    said: dict[str, list[str]] = {}
    for unit, names in RUNS.values():
        made = Unit(Memory(bytearray(SIZE)), **unit)
        with serving(Stick([made], Identity(speed="super"))) as there:
            there.wait()
            await_open_door(made)
            for name in names:
                for test, text in run(there.sg, name).items():
                    said.setdefault(test, []).append(text)
    failed = {test for test, texts in said.items() if any("FAILED" in text.split("Run Summary")[0] for text in texts)}
    ran = {test for test, texts in said.items() if any("[SKIPPED]" not in text for text in texts)}
    assert failed == FAILING.keys(), {test: said[test][-1][-600:] for test in failed - FAILING.keys()}
    assert len(ran) >= LEAST_RUN
    assert {test for test in said.keys() - ran if "iSCSI backends" not in said[test][-1]} == NOT_RUN.keys()
