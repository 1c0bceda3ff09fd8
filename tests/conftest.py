"""Fixtures of all tests: no resource is left held, and Ctrl-C works even if the process that runs pytest ignores it."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scsiusb import ledger


@pytest.hookimpl(tryfirst=True)  # before hypothesis looks for the profile that --hypothesis-profile names
def pytest_configure(config: pytest.Config) -> None:
    """A shell without job control starts what runs in the background with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.pluginmanager.hasplugin("hypothesispytest"):
        from tests.fuzz import profiles

        profiles.register()


def pytest_collection_finish() -> None:
    """Keep what pytest made out of the garbage collector: with it, each full collection takes a tenth of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def empty_ledger() -> Iterator[None]:
    """After each test nothing is held. A test that fails may hold things; the next one must not pay for that."""
    yield
    left = ledger.dump() if ledger.outstanding() else ""
    ledger.forget()
    assert left == ""


@pytest.fixture
def users_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's quirks: no variable is set, and the file is one of the test's."""
    from scsiusb.quirks import user as quirks_user

    path = tmp_path / "quirks"
    monkeypatch.delenv(quirks_user.VARIABLE, raising=False)
    monkeypatch.setattr(quirks_user, "path", lambda: path)
    return path


@pytest.fixture
def state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's folder for journals: one of the test's."""
    import platformdirs

    folder = tmp_path / "state"
    monkeypatch.setattr(platformdirs, "user_state_path", lambda *names, **options: folder)
    return folder
