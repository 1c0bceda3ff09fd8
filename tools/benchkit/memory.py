"""Peak memory of reading a sparse stick of 10 GiB, by the API and by the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from labkit.host import PYTHON

from benchkit import names, programs
from benchkit.cases import Case, Extent, Figures
from benchkit.names import key
from tests.kernel.machine import zoo

PEAK = Path(__file__).with_name("peak.py")
SUBJECT = "10 GiB"


def cases(extent: Extent) -> Iterator[Case]:
    """Yield the cases. They run once: they take long, and the peak hardly varies."""
    for way in (names.STREAM, names.CLI):
        yield Case(key(SUBJECT, way), partial(_peak, way, extent.huge), once=True)


def _peak(way: str, size: int) -> Figures:
    unit = zoo()["huge"].units[0]
    address, blocks = unit.device.wait().address, str(size // unit.block_size)
    words = ["stream", address, blocks]
    if way == names.CLI:
        words = ["cli", "read", address, "--lba", "0", "--blocks", blocks, "-o", "/dev/null"]
    output, _ = programs.run([PYTHON, PEAK, *words])
    found = json.loads(output.splitlines()[-1])
    return {names.PEAK: found["peak"] / 1024, names.MBS: size / 1e6 / found["seconds"]}
