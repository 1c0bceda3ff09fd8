"""Jobs that are killed at random moments: the resumed one has all bytes, and does little of it again."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from scsiusb.imaging.codecs import CODECS, FRAME, codec_by_name, decompressed
from tests.imaging.sticks import contents

SIZE = 12 * FRAME
LEAST_KILLS = 2  # on a slow machine, a job gets far before it is killed
MOST_RUNS = 50


class Killed:
    """A job that is killed whenever its journal has grown, until a run comes to its end before that."""

    def __init__(self, words: list[str], folder: Path, seed: int) -> None:
        self._command = [sys.executable, "-m", "scsiusb", *words, "--json", "--resume"]
        self._folder = folder
        self._chance = random.Random(seed)
        self.kills = 0

    def records(self) -> list[dict[str, Any]]:
        """Return the records of the journal, without its first line."""
        records = []
        for path in self._folder.glob("*.journal"):
            with suppress(FileNotFoundError):  # the job has just come to its end
                lines = path.read_bytes().splitlines(keepends=True)
                records = [json.loads(line) for line in lines[1:] if line.endswith(b"\n")]
        return records

    def run(self) -> Any:
        """Return the result of the last run."""
        for _ in range(MOST_RUNS):
            before = len(self.records())
            with subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                while process.poll() is None and len(self.records()) <= before:
                    time.sleep(0.001)
                time.sleep(self._chance.uniform(0, 0.02))
                process.kill()
                out, err = process.communicate()
            if process.returncode >= 0:
                assert process.returncode == 0, err
                return json.loads(out)
            self.kills += 1
        raise AssertionError("it never came to its end")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.img", "out.img.zst", "out.img.gz"])
def test_a_dump_that_is_killed_again_and_again(name: str, tmp_path: Path) -> None:
    data = bytes(contents(size=SIZE))
    (tmp_path / "stick").write_bytes(data)
    output = tmp_path / "out" / name
    output.parent.mkdir()
    job = Killed(["dump", f"virtual:{tmp_path / 'stick'}", str(output)], output.parent, 1)
    result = job.run()
    codec = codec_by_name(name)
    with open(output, "rb") as file:
        found = file.read() if codec is None else b"".join(decompressed(file, codec, name))
    assert found == data
    assert result["bytes"] == SIZE
    assert job.kills >= LEAST_KILLS
    assert result["resumed"] >= LEAST_KILLS * FRAME, "what is in the journal is not read again"
    assert [path.name for path in output.parent.iterdir()] == [name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.img", "a.img.gz"])
def test_a_restore_that_is_killed_again_and_again(name: str, tmp_path: Path) -> None:
    data = bytes(contents(2, SIZE))
    image = tmp_path / "image" / name
    image.parent.mkdir()
    image.write_bytes(CODECS[0].compress(data) if name.endswith(".gz") else data)
    stick = tmp_path / "stick"
    stick.write_bytes(b"\xaa" * SIZE)
    words = ["restore", str(image), f"virtual:{stick}", "--yes", "--verify", "read"]
    job = Killed(words, image.parent, 2)
    (result,) = job.run()
    assert stick.read_bytes() == data
    assert (result["bytes"], result["verified"]) == (SIZE, "read")
    assert job.kills >= LEAST_KILLS
    assert result["resumed"] >= LEAST_KILLS * FRAME, "what is in the journal is not written again"
    assert [path.name for path in image.parent.iterdir()] == [name]
