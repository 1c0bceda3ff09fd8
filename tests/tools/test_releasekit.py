"""The parts of tools/release-check that need no build: which Pythons it finds, and which errors a wrong wheel gives."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

from releasekit.build import DATA, ROOT, Failure, Release, check_contents, digests, run  # noqa: E402
from releasekit.environments import VERSIONS, find_pythons  # noqa: E402
from releasekit.main import main  # noqa: E402

ON_WINDOWS = sys.platform == "win32"


def wheel_of_the_tree(path: Path, leave_out: str = "", change: str = "") -> Release:
    """A wheel as the build makes it, but for one file."""
    sources = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "scsiusb").rglob("*.py")}
    sources |= {name: ROOT / source for name, source in DATA.items()}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scsiusb-0.dist-info/METADATA", "Name: scsiusb\n")
        for name, source in sources.items():
            if name != leave_out:
                archive.writestr(name, source.read_bytes() + (b"\n" if name == change else b""))
    return Release(path, path)


@pytest.mark.slow
@pytest.mark.skipif(ON_WINDOWS, reason="the release check runs on POSIX systems")
def test_this_python_is_found() -> None:
    found = find_pythons()
    assert ".".join(map(str, sys.version_info[:2])) in found
    assert list(found) == [version for version in VERSIONS if version in found]


def test_the_classifiers_name_versions_that_the_release_check_knows() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = [line.split(" :: ")[-1].rstrip('",') for line in text.splitlines() if "Python :: 3." in line]
    assert len(named) >= 4
    assert set(named) <= set(VERSIONS)


def test_a_wheel_that_holds_the_tree_passes(tmp_path: Path) -> None:
    release = wheel_of_the_tree(tmp_path / "whole.whl")
    assert check_contents(release) == len(digests(release.wheel)) - 1


@pytest.mark.parametrize("name", ["scsiusb/py.typed", "scsiusb/data/70-scsiusb.rules", "scsiusb/errors.py"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure, match=name):
        check_contents(wheel_of_the_tree(tmp_path / "less.whl", leave_out=name))


def test_a_file_that_differs_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"scsiusb/data/quirks\.txt"):
        check_contents(wheel_of_the_tree(tmp_path / "other.whl", change="scsiusb/data/quirks.txt"))


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(Failure, match=r"(?s)exit status 3.*the reason"):
        run([sys.executable, "-c", "import sys; print('the reason'); sys.exit(3)"])


def test_a_required_python_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("releasekit.main.find_pythons", dict)
    assert main(["--require", "3.10"]) == 1
    assert "no Python 3.10 found" in capsys.readouterr().err
