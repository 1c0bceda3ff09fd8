"""The child of a fork never uses its parent's devices: it gets clear errors, does not hang and exits normally."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest

from scsiusb import AsyncDisk, DeviceClosed, Manager, ledger, read_many
from scsiusb.manager.process import PROCESS
from scsiusb.opening import open_on
from tests.disk.polling import PolledBus
from tests.manager.test_sharing import first, hanging_read
from tests.sticks import PATIENCE, InterceptedBus, Worker, frequent_thread_switches, python, stick

if sys.platform == "win32":
    pytest.skip("there is no fork", allow_module_level=True)


@pytest.fixture(autouse=True)
def allow_fork_with_threads() -> Iterator[None]:
    """Ignore the DeprecationWarning of Python 3.12 and later for a fork while threads are running."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


@pytest.fixture
def bus() -> Iterator[InterceptedBus]:
    bus = InterceptedBus(stick(64))
    yield bus
    assert not bus.handles


def in_child(work: Callable[[], object]) -> None:
    """Run `work` in the child of a fork, which must exit in time and without an error."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    deadline = time.monotonic() + PATIENCE
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.001)
    assert ended[1] == 0


def refused(*uses: Callable[[], object]) -> None:
    for use in uses:
        with pytest.raises(DeviceClosed, match="the process that forked this one"):
            use()


def open_another_device() -> None:
    own = InterceptedBus(stick(64))
    with Manager(own) as manager, manager.open() as disk:
        assert first(disk, 9) == 9
        assert next(manager.events(timeout=PATIENCE)).kind == "attached"
    assert ledger.outstanding() == []


def test_the_childs_copies_report_that_the_parent_owns_them_and_closing_them_does_nothing(bus: InterceptedBus) -> None:
    with Manager(bus) as manager, manager.open() as disk:
        disk.write(0, b"\1" * 512)

        def child() -> None:
            assert ledger.outstanding() == []
            refused(lambda: disk.read(0, 1), disk.inquiry, disk.flush, disk.unit.transport.check)
            refused(manager.devices, manager.events, lambda: manager.on_attach(print))
            disk.close()
            manager.close()
            open_another_device()

        bus.wire.log.clear()
        in_child(child)
        assert bus.wire.log == []
        assert disk.read(0, 1) == b"\1" * 512
        assert [info.address for info in manager.devices()] == ["1-1"]


def test_a_fork_during_a_command_and_an_iteration_in_other_threads(bus: InterceptedBus) -> None:
    with Manager(bus) as manager:
        disk, other = manager.open(), manager.open()
        events = manager.events()
        next(events)
        reader, worker = Worker(lambda: list(events)), hanging_read(bus, disk)

        def child() -> None:
            refused(lambda: disk.read(0, 1), lambda: other.read(0, 1), lambda: other.blocks)
            assert list(events) == []
            other.close()
            disk.close()
            manager.close()
            open_another_device()

        in_child(child)
        disk.close()
        with pytest.raises(DeviceClosed, match="was closed"):
            worker.result()
        bus.wire.intercept = None
        assert first(other, 3) == 3
    assert reader.result() == []


@pytest.mark.slow
def test_a_fork_at_any_moment_while_other_threads_open_and_close() -> None:
    """Runs in a separate process without coverage: a forked child may wait forever for a lock of coverage."""
    script = "from tests.manager.test_fork import fork_among_threads; fork_among_threads()"
    status, _, err = python(script, COVERAGE_PROCESS_START="")
    assert (status, err) == (0, "")


def fork_among_threads() -> None:
    def open_and_close() -> None:
        while not stop.is_set():
            with Manager(bus) as manager, manager.open() as disk:
                disk.read(0, 1)

    bus, stop = InterceptedBus(stick(64)), threading.Event()
    with frequent_thread_switches():
        workers = [Worker(open_and_close), Worker(open_and_close)]
        try:
            for _ in range(15):
                in_child(lambda: None)
        finally:
            stop.set()
            for worker in workers:
                worker.result()
    assert PROCESS._attachments == {}


def test_a_child_of_a_child(bus: InterceptedBus) -> None:
    def child() -> None:
        refused(lambda: disk.read(0, 1))
        own = InterceptedBus(stick(64))
        with open_on(own) as mine:
            in_child(lambda: refused(lambda: disk.read(0, 1), lambda: mine.read(0, 1)))
            assert first(mine, 4) == 4

    with open_on(bus) as disk:
        in_child(child)
        assert first(disk, 5) == 5


def test_a_normal_exit_of_the_child_does_not_touch_the_parents_device(bus: InterceptedBus) -> None:
    with Manager(bus) as manager, manager.open() as disk:
        context = multiprocessing.get_context("fork")
        process = context.Process(target=open_another_device)
        bus.wire.log.clear()
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == 0
        assert bus.wire.log == []
        assert first(disk, 6) == 6


def test_dropping_the_childs_copies_gives_no_warning(bus: InterceptedBus) -> None:
    disks, managers = [open_on(bus)], [Manager(bus)]

    def child() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            disks.clear()
            managers.clear()
        assert caught == []

    in_child(child)
    disks.pop().close()
    managers.pop().close()


def test_an_unplug_in_the_child_does_not_call_on_gone_in_the_parent(bus: InterceptedBus) -> None:
    done = threading.Event()
    with open_on(bus, on_gone=done.set):
        in_child(lambda: bus.unplug(bus.devices()[0]))
        assert not done.is_set()
        bus.unplug(bus.devices()[0])
        assert done.wait(PATIENCE)


# --- what was begun before the fork ---------------------------------------------------------------


@pytest.mark.parametrize("kind", [InterceptedBus, PolledBus])
def test_a_child_cannot_go_on_with_a_loop_over_many_disks_of_its_parent(kind: type[InterceptedBus]) -> None:
    bus = kind(stick(2048))
    with open_on(bus) as disk:
        disk.max_blocks = 64
        with read_many(disk.reading(0, 2048)) as chunks:
            data = [bytes(next(chunks).piece)]

            def child() -> None:
                refused(lambda: next(chunks))
                chunks.__exit__(None, None, None)

            in_child(child)
            data += [bytes(chunk.piece) for chunk in chunks]
        assert b"".join(data) == disk.read(0, 2048)
    assert not bus.handles
    bus.close()


def test_a_child_cannot_go_on_with_a_stream_of_its_parent(bus: InterceptedBus) -> None:
    with open_on(bus) as disk:
        disk.max_blocks = 8
        with disk.reading(0, 64) as reading:
            data = [bytes(next(reading))]

            def child() -> None:
                refused(lambda: next(reading))
                reading.__exit__(None, None, None)

            in_child(child)
            data += [bytes(piece) for piece in reading]
        assert b"".join(data) == disk.read(0, 64)


def test_a_write_that_a_child_would_finish_is_no_success(bus: InterceptedBus) -> None:
    with open_on(bus) as disk, disk.writing(0) as writing:
        writing.write(b"\1" * 512)

        def child() -> None:
            refused(lambda: writing.write(b"\2" * 512), lambda: writing.__exit__(None, None, None))

        in_child(child)
    with open_on(bus) as disk:
        assert disk.read(0, 1) == b"\1" * 512


def test_a_child_cannot_go_on_with_a_disk_for_asyncio_of_its_parent(bus: InterceptedBus) -> None:
    async def play() -> None:
        async with AsyncDisk(lambda: open_on(bus)) as disk:
            before = await disk.read(0, 1)

            def child() -> None:
                loop = asyncio.new_event_loop()
                refused(lambda: loop.run_until_complete(disk.read(0, 1)))
                loop.run_until_complete(disk.aclose())

            thread = Worker(lambda: in_child(child))  # no event loop runs in that thread
            await asyncio.to_thread(thread.result)
            assert await disk.read(0, 1) == before

    asyncio.run(play())
