"""Reference results: what sg3-utils reports about a device through the kernel's driver."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

PATIENCE = 120.0  # seconds that a tool may take
NUMBER = re.compile(r"(?:\[)?([A-Za-z0-9_ -]*[A-Za-z0-9_])=(0x[0-9a-fA-F]+|\d+)\b")


class OracleError(Exception):
    """The tool ended with an exit status other than 0; sg3_utils(8) lists them."""

    def __init__(self, words: list[str], status: int, text: str) -> None:
        super().__init__(f"{' '.join(words)}: status {status}: {text.strip()}")
        self.status = status
        self.text = text


class Capacity(NamedTuple):
    blocks: int
    block_size: int


class Inquiry(NamedTuple):
    """Standard INQUIRY data: `fields` has every flag by its name in sg_inq, `raw` the bytes."""

    vendor: str
    product: str
    revision: str
    fields: dict[str, int]
    raw: bytes


class Modes(NamedTuple):
    """MODE SENSE of all pages: header fields by their names in sg_modes, and the bytes of each page by its code."""

    fields: dict[str, int]
    pages: dict[int, bytes]


def tool(*words: str | Path) -> bytes:
    """Run a tool of sg3-utils and return what it wrote to standard output."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise OracleError(command, done.returncode, (done.stderr + done.stdout).decode(errors="replace"))
    return done.stdout


def inquiry(sg: Path) -> Inquiry:
    """sg_inq: standard INQUIRY, decoded and raw."""
    raw = tool("sg_inq", "--raw", "--len=36", sg)
    text = tool("sg_inq", "--len=36", sg).decode()
    values = named(text)
    revision = values["Product revision level"]
    return Inquiry(values["Vendor identification"], values["Product identification"], revision, _numbers(text), raw)


def vpd(sg: Path, page: int) -> bytes:
    """sg_vpd: a VPD page's bytes, header included."""
    return tool("sg_vpd", "--raw", f"--page={page:#x}", sg)


def vpd_names(sg: Path, page: int) -> dict[str, str]:
    """sg_vpd: a VPD page as names and values of the tool."""
    return named(tool("sg_vpd", f"--page={page:#x}", sg).decode())


def block_limits(sg: Path) -> dict[str, int]:
    """sg_vpd: the Block Limits page (B0h) as numbers by the tool's names."""
    found = {}
    for name, value in vpd_names(sg, 0xB0).items():
        number = re.match(r"0x[0-9a-f]+|\d+", value)
        if number:
            found[name] = int(number[0], 0)
    return found


def supported_pages(sg: Path) -> list[int]:
    """sg_vpd: the codes of the VPD pages that the device lists."""
    return list(vpd(sg, 0)[4:])


def readcap(sg: Path, *, long: bool = False) -> Capacity:
    """sg_readcap: READ CAPACITY(10), or (16) if `long` or if the tool finds the capacity too large for (10)."""
    text = tool("sg_readcap", *(["--16"] if long else []), sg).decode()
    return Capacity(_number(r"Number of logical blocks=(\d+)", text), _number(r"block length=(\d+)", text))


def long_capacity(sg: Path) -> dict[str, int]:
    """sg_readcap: all fields of READ CAPACITY(16) by the tool's names."""
    return _numbers(tool("sg_readcap", "--16", sg).decode())


def luns(sg: Path) -> list[int]:
    """sg_luns: the LUNs of REPORT LUNS in the device's order (single-level addressing)."""
    text = tool("sg_luns", sg).decode()
    return [int(field[:4], 16) for field in re.findall(r"^\s+([0-9a-f]{16})$", text, re.MULTILINE)]


def modes(sg: Path, *, six: bool = False) -> Modes:
    """sg_modes: all current mode pages by MODE SENSE(10), or (6)."""
    text = tool("sg_modes", "-a", *(["-6"] if six else []), sg).decode()
    head, *parts = re.split(r"^>> .*\n", text, flags=re.MULTILINE)
    pages = {data[0] & 0x3F: data for data in (_hex_dump(part) for part in parts) if data}
    return Modes(_numbers(head), pages)


def decode_sense(sense: bytes) -> str:
    """sg_decode_sense: the text for sense data."""
    return tool("sg_decode_sense", *(f"{byte:02x}" for byte in sense)).decode().strip()


def raw(sg: Path, cdb: bytes, length: int) -> bytes:
    """sg_raw: the data-in of any command."""
    return tool("sg_raw", "--binary", f"--request={length}", sg, *(f"{byte:02x}" for byte in cdb))


def failure(sg: Path, cdb: bytes) -> str:
    """sg_raw: what it says of a command that the unit refuses."""
    try:
        raw(sg, cdb, 512)
    except OracleError as error:
        return str(error)
    raise AssertionError(f"{cdb.hex(' ')} did not fail")


def ready(sg: Path) -> int:
    """sg_raw: the exit status for TEST UNIT READY; 0 if ready, 2 if not. sg_turs 1.48 sends nothing and returns 0."""
    try:
        tool("sg_raw", sg, *["00"] * 6)
    except OracleError as error:
        return error.status
    return 0


def named(text: str) -> dict[str, str]:
    """Parse lines of the form `Name: value`."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _numbers(text: str) -> dict[str, int]:
    """Parse every `name=7` or `name=0x7`."""
    return {name.strip(): int(value, 0) for name, value in NUMBER.findall(text)}


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise OracleError([pattern], 0, text)
    return int(found[1])


def _hex_dump(text: str) -> bytes:
    """Parse a hex dump with an offset at the start of each line."""
    rows = re.findall(r"^ [0-9a-f]+ {2,}((?:[0-9a-f]{2} {1,2})*[0-9a-f]{2})", text, re.MULTILINE)
    return bytes.fromhex("".join(rows))
