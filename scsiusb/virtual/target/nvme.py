"""An NVMe disk: Identify Controller, and the health, error and self-test logs (NVMe 1.4)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

GET_LOG_PAGE, IDENTIFY = 0x02, 0x06
NAMESPACE, CONTROLLER = 0, 1  # CNS of Identify
HEALTH_LOG, ERROR_LOG, FIRMWARE_LOG, SELF_TEST_LOG = 0x02, 0x01, 0x03, 0x06
IDENTIFY_LENGTH: Final = 4096
LENGTHS: Final = {ERROR_LOG: 64, HEALTH_LOG: 512, FIRMWARE_LOG: 512, SELF_TEST_LOG: 564}
MODEL: Final = "Virtual NVMe 980"
KELVIN: Final = 273
ABORT: Final = 0xF

HEALTHS: Final[Mapping[str, Mapping[str, int]]] = {  # as makers of SSDs have them
    "good": {"temperature": 38, "spare": 100, "used": 3, "hours": 1234, "written": 21_000_000},
    "worn": {"temperature": 44, "spare": 92, "used": 97, "hours": 30_112, "written": 980_000_000, "errors": 2},
    "failing": {"warning": 0x05, "temperature": 71, "spare": 4, "used": 141, "hours": 41_000, "errors": 1207},
}


class NvmeDisk:
    """The disk. `health`: one of `HEALTHS`."""

    def __init__(self, health: str = "good") -> None:
        self.model = MODEL
        self.values = HEALTHS[health]
        self.is_failing = health == "failing"
        self.running = 0
        """The self-test that runs, and how far it is in percent; then how the last one ended."""
        self.percent = 0
        self.result: tuple[int, int] | None = None

    def admin(self, unit: Unit, opcode: int, low: int) -> bytes | None:
        """Return all the data of an admin command; `low`: the page of a log, or CNS. None: not supported."""
        if opcode == IDENTIFY and low in (NAMESPACE, CONTROLLER):
            return self.identify(unit) if low == CONTROLLER else self.namespace(unit)
        if opcode == GET_LOG_PAGE and low in LENGTHS:
            made = {HEALTH_LOG: self.health, SELF_TEST_LOG: self.self_test_log, ERROR_LOG: self.error_log}.get(low)
            return made() if made is not None else bytes(LENGTHS[low])
        return None

    def begin_self_test(self, code: int) -> bool:
        """Begin (1 short, 2 extended) or abort (Fh) a self-test; return whether the code is known."""
        if code == ABORT and self.running:
            self.result, self.running = (self.running, 1), 0
        elif code in (1, 2):
            self.running, self.percent = code, 0
        return code in (1, 2, ABORT)

    def error_log(self) -> bytes:
        """Return the error information log: of a failing disk, a read error at block 2000 (NVMe 1.4 5.14.1.1)."""
        entry = struct.pack("<QHHHHQI", 7, 1, 3, 0x281 << 1, 0xFFFF, 2000, 1).ljust(64, b"\0")
        return (entry if self.is_failing else b"").ljust(4 * 64, b"\0")

    def self_test_log(self) -> bytes:
        """Return Device Self-test (figure 199); each look finds a running test a quarter further."""
        data = bytearray(LENGTHS[SELF_TEST_LOG])
        data[0], data[1] = self.running, self.percent if self.running else 0
        data[4] = 0x0F if self.result is None else self.result[0] << 4 | self.result[1]
        for at in range(1, 20):
            data[4 + 28 * at] = 0x0F
        if self.running:
            self.percent += 25
            if self.percent >= 100:
                self.result, self.running = (self.running, 7 if self.is_failing else 0), 0
        return bytes(data)

    def identify(self, unit: Unit) -> bytes:
        """Return Identify Controller (figure 247)."""
        data = bytearray(IDENTIFY_LENGTH)
        struct.pack_into("<HH", data, 0, 0x144D, 0x144D)
        for at, size, text in ((4, 20, unit.device_serial), (24, 40, self.model), (64, 8, "1.00")):
            data[at : at + size] = text.encode("ascii", "replace")[:size].ljust(size)
        struct.pack_into("<I", data, 80, 0x00010400)  # version 1.4
        struct.pack_into("<HH", data, 266, 273 + 81, 273 + 85)  # warning and critical temperature
        data[262] = 3  # entries of the error log, less 1
        size = self._blocks(unit) * self._block_size(unit)
        data[280:296] = size.to_bytes(16, "little")
        data[512:514] = b"\x66\x44"  # sizes of queue entries
        struct.pack_into("<I", data, 516, 1)
        return bytes(data)

    def namespace(self, unit: Unit) -> bytes:
        """Return Identify Namespace (figure 245)."""
        data = bytearray(IDENTIFY_LENGTH)
        blocks = self._blocks(unit)
        struct.pack_into("<QQQ", data, 0, blocks, blocks, blocks)
        struct.pack_into("<HBB", data, 128, 0, self._block_size(unit).bit_length() - 1, 0)
        return bytes(data)

    def health(self) -> bytes:
        """Return SMART / Health Information (figure 196)."""
        values = self.values
        data = bytearray(LENGTHS[HEALTH_LOG])
        warning, spare, used = values.get("warning", 0), values["spare"], values["used"]
        struct.pack_into("<BHBBB", data, 0, warning, values["temperature"] + KELVIN, spare, 10, used)
        counts = (
            (32, values.get("read", 12_000_000)),
            (48, values.get("written", 21_000_000)),
            (64, 91_000_000),
            (80, 83_000_000),
            (96, 310),
            (112, 210),
            (128, values["hours"]),
            (144, 17),
            (160, values.get("errors", 0)),
            (176, values.get("errors", 0)),
        )
        for at, count in counts:
            data[at : at + 16] = count.to_bytes(16, "little")
        struct.pack_into("<HH", data, 200, values["temperature"] + KELVIN, values["temperature"] + KELVIN + 9)
        return bytes(data)

    @staticmethod
    def _blocks(unit: Unit) -> int:
        return unit.medium.blocks if unit.medium is not None else 0

    @staticmethod
    def _block_size(unit: Unit) -> int:
        return unit.medium.block_size if unit.medium is not None else 512
