"""Mode pages with random contents, and the names of their fields, by us and by sdparm."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from random import Random

import pytest

from scsiusb.scsi.pages.mode import ModeParameters
from scsiusb.scsi.pages.mode_layout import OPTICAL, PageLayout
from scsiusb.scsi.pages.mode_pages import PAGES, depends_on_type, find_layout, page_called
from tests.programs import needs

RUNS = 500
FIELD = re.compile(r"^  (\S+) +\[0x([0-9a-f]+):(\d):(\d+) *\]", re.MULTILINE)
VALUE = re.compile(r"^  ([A-Z]\S+) +(-?\d+)  ", re.MULTILINE)
NOT_SDPARMS = {  # what sdparm 1.12 has otherwise, or not at all
    ("rw", "ERWS"): "SBC-4 has no such field; it would overlap RTL",
    ("fd", "MRR"): "UFI 4.5.4, SBC-2: medium rotation rate",
    ("ps", "ACT_LEV"): "SPC-5 7.5.14: three bits",
    ("afc", "CDL_CTRL"): "SAT-5: three bits",
    ("cdt2a", "CDGUPOL"): "SPC-6: four bits",
}
UNKNOWN_TO_IT = ("cddp", "cdac")
KNOWN = [page for page in PAGES if page.acronym not in UNKNOWN_TO_IT]
needs_sdparm = needs("sdparm")


def sdparm(*words: str) -> str:
    return subprocess.run(["sdparm", *words], capture_output=True, text=True, check=False, timeout=60).stdout


@needs_sdparm
@pytest.mark.parametrize("page", KNOWN, ids=lambda page: page.name)
def test_fields_have_the_names_and_places_that_sdparm_gives_them(page: PageLayout) -> None:
    rows = FIELD.findall(sdparm("--enumerate", "--long", f"--page={page.acronym}"))
    theirs = {name: (int(byte, 16), int(bit), int(bits)) for name, byte, bit, bits in rows}
    ours = {field.name: (field.byte, field.bit, field.bits) for field in page.fields}
    differing = {name for name in theirs | ours if theirs.get(name) != ours.get(name)}
    assert differing == {name for acronym, name in NOT_SDPARMS if acronym == page.acronym}


def made(page: PageLayout, random: Random) -> bytes:
    size = max(4, *(field.end for field in page.fields))
    if page.subpage:
        return bytes((page.code | 0x40, page.subpage)) + (size - 4).to_bytes(2, "big") + random.randbytes(size - 4)
    return bytes((page.code, size - 2)) + random.randbytes(size - 2)


@pytest.mark.slow
@needs_sdparm
@pytest.mark.parametrize("device_type", [0x00, OPTICAL])
def test_sdparm_reads_what_we_read(tmp_path: Path, device_type: int) -> None:
    random, path = Random(device_type), tmp_path / "pages"
    chosen = [page for page in KNOWN if page.device_type in (None, device_type)]
    compared: set[tuple[str, str]] = set()
    for _ in range(RUNS):
        body = b"".join(made(page, random) for page in chosen)
        data = (6 + len(body)).to_bytes(2, "big") + bytes((0, 0x10, 0, 0, 0, 0)) + body
        path.write_text(data.hex(" "))
        said = sdparm(f"--inhex={path}", "--all", "--long", f"--pdt={device_type}")
        parts = re.split(r"^\S.* \[(\w+)\] mode page:$", said, flags=re.MULTILINE)
        theirs = {acronym: dict(VALUE.findall(rows)) for acronym, rows in zip(parts[1::2], parts[2::2], strict=True)}
        found = ModeParameters.parse(data, long_header=True).pages
        assert len(found) == len(chosen)
        for layout, page in zip(chosen, found, strict=True):
            whole = bytes(4 if page.subpage else 2) + page.body
            assert find_layout(page.code, page.subpage, device_type) is layout
            for field in layout.fields:
                value = theirs.get(layout.acronym, {}).get(field.name)
                if (layout.acronym, field.name) not in NOT_SDPARMS and value is not None:
                    ones = (1 << field.bits) - 1
                    assert field.value(whole) == int(value) % (ones + 1), (layout.name, field.name, data.hex())
                    compared.add((layout.acronym, field.name))
    assert len(compared) > 100, "sdparm leaves out a few pages of another type, and some descriptors"


def test_a_code_that_optical_drives_use_otherwise() -> None:
    assert [find_layout(0x05, 0, kind).name for kind in (None, 0x00, 0x07, OPTICAL)] == [  # type: ignore[union-attr]
        *["flexible"] * 3,
        "writing",
    ]
    assert find_layout(0x2A, 0, 0x00) is None
    assert find_layout(0x2A, 0).name == "optical"  # type: ignore[union-attr]
    assert depends_on_type(0x05)
    assert not depends_on_type(0x08)
    assert page_called("wp") == (0x05, 0)
