"""With any number of free descriptors, each use of a disk works or raises a clear error, and nothing is left held."""

from __future__ import annotations

import contextlib
import errno
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.forkserver import environment, start
from tests.leases.processes import wait_for
from tests.sticks import PATIENCE, Worker

if sys.platform != "linux":
    pytest.skip("reads /proc and starts a warden", allow_module_level=True)

# The whole way: manager, disk with lease and warden, read, stream, many-device read, asyncio, close.
SCRIPT = """
import asyncio, contextlib, gc, json, logging, os, resource, sys, threading, time
from pathlib import Path
import scsiusb
from scsiusb import ledger
from scsiusb.leases import folders
from scsiusb.leases.lease import Lease
from scsiusb.manager.process import PROCESS
from scsiusb.leases.warden import Warden
from scsiusb.errors import ScsiUsbError
from scsiusb.virtual import Bus, Memory, Stick, Unit

LIMIT = 64
root, free, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
folders.own = lambda: [root / "leases"]
folders.RUN = root / "run"
folders._all_users = lambda: iter(())

class Shared(Bus):
    is_shared = True

class Wardens(Warden):
    def __init__(self):
        super().__init__(str(root / "sys"), str(root / "dev"))

import scsiusb.leases.warden
scsiusb.leases.warden.Warden = Wardens
warned = []
handler = logging.Handler()
handler.emit = lambda record: warned.append(record.getMessage())
logging.getLogger().addHandler(handler)

fillers = []
def exhaust():
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with contextlib.suppress(OSError):
        while True:
            fillers.append(os.dup(0))
    for _ in range(free):
        os.close(fillers.pop())

results = {}
def step(name, call):
    try:
        results[name] = ["good", str(call())]
    except (ScsiUsbError, OSError) as error:
        results[name] = [type(error).__name__, str(error), getattr(error, "errno", None)]
        error.__traceback__ = None
    except BaseException as error:
        import traceback
        results[name] = ["UNCLEAR", repr(error), traceback.format_exc()]

def expect(data):
    assert data == bytes(len(data)), "wrong data"
    return len(data)

def stream(disk):
    with disk.reading(0, 2000) as chunks:
        return sum(expect(bytes(chunk)) for chunk in chunks)

def take(chunk):
    if chunk.error is not None:
        raise chunk.error
    return expect(bytes(chunk.piece))

def many(disk):
    with scsiusb.read_many(disk.reading(0, 2000), disk.reading(8, 2000)) as chunks:
        return sum(take(chunk) for chunk in chunks)

async def with_asyncio(manager):
    async with scsiusb.aopen(manager=manager) as disk:
        return expect(await disk.read(0, 8))

bus = Shared(Stick([Unit(Memory(1 << 20))]))
if when == "warm":  # everything is imported
    with scsiusb.Manager(bus) as manager:
        with manager.open() as disk:
            stream(disk), many(disk), disk.write(0, bytes(512))
        asyncio.run(with_asyncio(manager))
state = {}
if when in ("first", "warm"):
    exhaust()
step("manager", lambda: state.update(manager=scsiusb.Manager(bus)))
manager = state.get("manager")
if manager is not None:
    step("open", lambda: state.update(disk=manager.open()))
disk = state.get("disk")
if when == "opened":
    exhaust()
if disk is not None:
    step("read", lambda: expect(disk.read(0, 8)))
    step("write", lambda: disk.write(0, bytes(512)))
    step("stream", lambda: stream(disk))
    step("read_many", lambda: many(disk))
if manager is not None:
    step("asyncio", lambda: asyncio.run(with_asyncio(manager)))
if disk is not None:
    step("close", disk.close)
if manager is not None:
    step("close manager", manager.close)
PROCESS.tidy()
warden = PROCESS._warden
del state, disk, manager
left = {"ledger": ledger.dump() if ledger.outstanding() else "", "held": list(warden._held) if warden else []}
for each in fillers:
    os.close(each)
gc.collect()
left["threads"] = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
left["leases"] = sorted(each.name for each in (root / "leases").glob("*")) if (root / "leases").is_dir() else []
print(json.dumps({"results": results, "left": left, "warned": warned, "pid": os.getpid()}), flush=True)
"""


def outcome(folder: Path, free: int, when: str) -> dict[str, Any]:
    with start(SCRIPT, folder, free, when, env=environment()) as process:
        assert process.stdout is not None
        try:
            text = Worker(process.stdout.read).result()
            process.wait(PATIENCE)
        finally:
            process.kill()
        assert process.wait() == 0
    found: dict[str, Any] = json.loads(str(text))
    return found


def wardens(pid: int) -> list[str]:
    """Return the processes that are wardens of the process `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"warden_main.py" in words and str(pid).encode() in words:
                found.append(path.parent.name)
    return found


def check(folder: Path, free: int, when: str) -> dict[str, list[Any]]:
    """Raise AssertionError unless each step worked or raised a clear error, and nothing is left; return the steps."""
    found = outcome(folder, free, when)
    for name, result in found["results"].items():
        is_clear = result[0] == "good" or result[2] == errno.EMFILE or "Too many open files" in result[1]
        assert is_clear, f"{name} with {free} descriptors: {result}"
    assert found["left"] == {"ledger": "", "held": [], "threads": [], "leases": []}, free
    wait_for(lambda: not wardens(found["pid"]), "the end of the warden")
    return dict(found["results"])


MODES = ("first", "opened", "warm")
# Where the limit is reached at each place in turn; with more it is reached in the warden's start, and then nowhere.
FAST = [*(("first", free) for free in range(7)), *(("opened", free) for free in range(3)), ("warm", 3)]
SLOW = [(when, free) for when in MODES for free in range(31) if (when, free) not in FAST]


@pytest.mark.slow
@pytest.mark.parametrize(("when", "free"), [*FAST, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)])
def test_with_few_descriptors_all_works_or_raises_a_clear_error(tmp_path: Path, when: str, free: int) -> None:
    """`when`: before anything is opened, after the disk was, or after everything was imported and used once."""
    check(tmp_path, free, when)


def test_with_thirty_descriptors_all_works(tmp_path: Path) -> None:
    results = check(tmp_path, 30, "first")
    assert len(results) == 9
    assert {result[0] for result in results.values()} == {"good"}


def test_a_lease_is_removed_without_a_free_descriptor(tmp_path: Path) -> None:
    """To open its folder for that would need one."""
    results = check(tmp_path, 0, "opened")
    assert results["close"] == ["good", "None"]
    assert (tmp_path / "leases").is_dir()


def test_a_unit_attention_is_not_replaced_by_the_want_of_a_descriptor(tmp_path: Path) -> None:
    """The list of texts is read when the first sense data is put into words: the read goes on without it."""
    results = check(tmp_path, 0, "opened")
    assert results["read"] == ["good", "4096"]
