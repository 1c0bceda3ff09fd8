"""An interface is taken step by step and given back in the reverse order, exactly once, whatever happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from scsiusb.errors import (
    AccessDenied,
    DeviceBusy,
    DeviceGone,
    DeviceTimeout,
    DeviceUnsupported,
    TransferStalled,
    TransportError,
)
from scsiusb.usb import port as port_module
from scsiusb.usb.backend import Code, UsbError
from scsiusb.usb.buffers import PAGE
from scsiusb.usb.interface import find
from scsiusb.usb.port import Port
from scsiusb.virtual import Bus, Memory, Stick, Unit, uas_interface
from scsiusb.virtual.device.descriptors import InterfaceDescriptor
from tests.interrupts import CtrlC, Raise, of_module
from tests.usb.libusb.watched import Scene

OPENING = ["uses", "strings", "open", "driver_active", "detach_driver", "claim"]
CLOSING = ["release", "attach_driver", "free", "close"]


def raising(error: BaseException) -> Callable[[], None]:
    def mishap() -> None:
        raise error

    return mishap


def use(scene: Scene) -> None:
    with Port(scene.backend, scene.info) as port, port.memory.lend(512):
        pass


def steps(uas: bool) -> list[tuple[bool, int, str]]:
    """The steps of taking an interface, using one buffer of it, and giving it back."""
    scene = Scene(uas)
    use(scene)
    return [(uas, number, name) for number, name in enumerate(scene.watched.names)]


STEPS = [*steps(uas=False), *steps(uas=True)]
OPENING_STEPS = [step for step in STEPS if step[2] not in ("allocate", *CLOSING)]
CLOSING_STEPS = [step for step in STEPS if step[2] in CLOSING]


def each_of(steps: list[tuple[bool, int, str]]) -> pytest.MarkDecorator:
    names = [f"{'uas' if uas else 'bot'}-{number}-{name}" for uas, number, name in steps]
    return pytest.mark.parametrize(("uas", "number"), [step[:2] for step in steps], ids=names)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- the order ------------------------------------------------------------------------------------


def test_taking_and_giving_back_are_in_reverse_order_each_exactly_once(scene: Scene) -> None:
    use(scene)
    assert scene.watched.names == [*OPENING, "allocate", *CLOSING]
    scene.assert_all_given_back()


def test_while_the_port_is_open_the_interface_is_ours_and_not_the_kernels(scene: Scene) -> None:
    with Port(scene.backend, scene.info):
        assert scene.driver is None
        other = scene.bus.open(scene.device)
        with pytest.raises(UsbError) as caught:
            other.claim(0)
        assert caught.value.code is Code.BUSY
        other.close()


def test_a_port_may_be_closed_twice(scene: Scene) -> None:
    port = Port(scene.backend, scene.info)
    port.close()
    done = list(scene.watched.steps)
    port.close()
    assert scene.watched.steps == done


def test_a_driver_that_was_not_bound_before_is_not_bound_after(scene: Scene) -> None:
    scene.unbind()
    use(scene)
    assert not {"detach_driver", "attach_driver"} & set(scene.watched.names)
    scene.assert_all_given_back()


def test_a_device_with_one_setting_is_not_asked_to_select_it(scene: Scene) -> None:
    use(scene)
    assert "set_alternate" not in scene.watched.names


def test_the_bot_setting_is_selected_where_uas_had_the_interface_and_uas_comes_back() -> None:
    scene = Scene(uas=True)
    assert (scene.driver, scene.stick.alternates) == ("uas", {0: 1})
    with Port(scene.backend, scene.info):
        assert scene.stick.alternates == {0: 0}
    assert (scene.driver, scene.stick.alternates) == ("uas", {0: 1})
    names = scene.watched.names
    assert names.index("claim") < names.index("set_alternate")


# --- mishaps at every step ------------------------------------------------------------------------


@each_of(STEPS)
def test_a_device_unplugged_before_any_step_is_gone_and_nothing_stays(
    uas: bool, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(uas)
    scene.watched.before(number, scene.unplug)
    is_opening = (uas, number) in [step[:2] for step in OPENING_STEPS]
    if is_opening:
        with pytest.raises(DeviceGone):
            use(scene)
    else:
        use(scene)
    assert scene.bus.handles == ()
    scene.assert_no_buffer_outstanding()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert all(scene.watched.names.count(name) <= 1 for name in CLOSING)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), RuntimeError("a fault of ours")], ids=repr)
@each_of(OPENING_STEPS)
def test_an_exception_before_any_step_of_opening_gives_everything_back(
    uas: bool, number: int, error: BaseException
) -> None:
    scene = Scene(uas)
    scene.watched.before(number, raising(error))
    with pytest.raises(type(error)):
        use(scene)
    scene.assert_all_given_back()


@each_of([step for step in OPENING_STEPS if step[2] != "open"])
def test_an_interrupt_just_after_any_step_of_opening_gives_everything_back(uas: bool, number: int) -> None:
    scene = Scene(uas)
    scene.watched.after(number, raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        use(scene)
    scene.assert_all_given_back()


@pytest.mark.parametrize("code", [Code.IO, Code.BUSY, Code.ACCESS, Code.OTHER])
@each_of([step for step in OPENING_STEPS if step[2] not in ("uses", "strings")])
def test_a_failure_at_any_step_of_opening_is_a_public_error_and_gives_everything_back(
    uas: bool, number: int, code: Code
) -> None:
    scene = Scene(uas)
    scene.watched.before(number, raising(UsbError(code)))
    with pytest.raises(TransportError) as caught:
        use(scene)
    assert str(scene.info) in str(caught.value)
    scene.assert_all_given_back()


@pytest.mark.parametrize("when", ["before", "after"])
@each_of([step for step in CLOSING_STEPS if step[2] in ("release", "attach_driver")])
def test_an_interrupt_in_closing_leaves_no_step_out(uas: bool, number: int, when: str) -> None:
    scene = Scene(uas)
    getattr(scene.watched, when)(number, raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        use(scene)
    scene.assert_all_given_back()


@pytest.mark.parametrize("uas", [False, True])
def test_an_interrupt_at_any_line_of_opening_gives_everything_back(uas: bool) -> None:
    """Ctrl-C comes between any two lines, also between a step and the note that it has to be undone."""
    line = 0
    while True:
        line += 1
        scene = Scene(uas)
        ctrl_c = CtrlC(of_module(port_module), line, event="line")
        port = ctrl_c.run(partial(Port, scene.backend, scene.info))
        if port is None:
            scene.assert_all_given_back()
        else:
            port.close()
            break
    assert line > 30


def test_a_lack_of_memory_at_any_instruction_of_taking_all_gives_everything_back() -> None:
    """It may come between the end of an acquire and the store of what it returned."""
    for count in range(1, 10_000):
        scene = Scene()
        raised = Raise(MemoryError, lambda frame: frame.f_code is Port._take.__code__, count)
        port = raised.run(partial(Port, scene.backend, scene.info))
        if port is not None:
            port.close()
            break
        scene.assert_all_given_back()
    assert count > 30


def test_a_release_that_fails_is_logged_and_the_rest_goes_on(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.watched.before(len(OPENING) + 1, raising(UsbError(Code.IO)))
    use(scene)
    assert scene.watched.names[len(OPENING) + 1 :] == CLOSING
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"releasing {scene.info}" in record.getMessage()


def test_a_driver_that_was_bound_again_meanwhile_is_no_news(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.watched.before(len(OPENING) + 2, lambda: scene.bus.open(scene.device).attach_driver(0))
    with caplog.at_level(logging.INFO):
        use(scene)
    assert caplog.records == []
    assert scene.driver == "usb-storage"


# --- refusals -------------------------------------------------------------------------------------


def test_a_mounted_disk_is_refused_by_name_and_the_driver_stays(scene: Scene) -> None:
    scene.stick.uses = ["/dev/sda1 is mounted on /media/us\x1b[2J", "/dev/sda2 is used as swap"]
    with pytest.raises(DeviceBusy) as caught:
        use(scene)
    assert caught.value.what == f"{scene.info}: {scene.stick.uses[0]}, {scene.stick.uses[1]}".replace("\x1b", "\ufffd")
    assert "unmount" in caught.value.remedy
    assert scene.watched.names == ["uses"]
    scene.assert_all_given_back()


def test_another_stick_of_the_model_with_the_same_number_is_not_taken(scene: Scene) -> None:
    """The serial is all that differs where the USB stack reports nothing else about a plugging-in."""
    other = replace(scene.info, serial="another")
    with pytest.raises(DeviceGone, match="another device has its number now"):
        Port(scene.backend, other)
    assert scene.watched.names == ["uses", "strings"]
    scene.assert_all_given_back()


def test_a_stick_whose_serial_cannot_be_read_now_is_taken(scene: Scene) -> None:
    scene.stick.has_readable_strings = False
    Port(scene.backend, replace(scene.info, serial="4C53")).close()
    scene.assert_all_given_back()


def test_an_interface_that_another_handle_has_claimed_is_busy_and_stays_claimed(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    other = scene.bus.open(scene.device)
    other.detach_driver(0)
    other.claim(0)
    with pytest.raises(DeviceBusy, match="claiming"):
        use(scene)
    assert scene.bus.handles == (other,)
    assert caplog.records == [], "what was never claimed need not be released"
    other.release(0)
    other.attach_driver(0)
    other.close()
    scene.assert_all_given_back()


def test_a_device_that_we_may_not_open_is_denied_with_what_to_do(scene: Scene) -> None:
    scene.stick.accessible = False
    with pytest.raises(AccessDenied, match=r"opening .*; run `scsiusb doctor`"):
        use(scene)
    assert scene.driver == "usb-storage"
    assert scene.bus.handles == ()


def test_a_uas_interface_whose_pipes_are_not_named_is_refused_with_nothing_touched() -> None:
    uas: InterfaceDescriptor = uas_interface(alternate=0)
    uas = replace(uas, endpoints=tuple(replace(each, extra=b"") for each in uas.endpoints))
    scene = Scene()
    scene.bus.unplug(scene.stick)
    scene.stick = Stick([Unit(Memory(512))], None, [uas])
    scene.device = scene.bus.plug(scene.stick)
    with pytest.raises(DeviceUnsupported, match="four pipes of UAS"):
        Port(scene.backend, scene.info)
    assert scene.watched.names == []
    assert scene.driver == "uas"


def test_a_device_that_was_replugged_since_is_gone(scene: Scene) -> None:
    before = scene.info
    scene.unplug()
    scene.device = scene.bus.plug(scene.stick)
    with pytest.raises(DeviceGone, match="opening"):
        Port(scene.backend, before)
    scene.assert_all_given_back()


# --- buffers --------------------------------------------------------------------------------------


def test_a_buffer_for_the_largest_command_is_no_larger_than_the_limit(scene: Scene) -> None:
    with Port(scene.backend, scene.info) as port:
        assert port.limit_transfer_size(120 * 1024) == 120 * 1024
        for size, whole in (
            (120 * 1024, 120 * 1024),
            (100 * 1024, 120 * 1024),
            (64 * 1024, 1 << 16),
            (1 << 17, 1 << 17),
        ):
            with port.memory.lend(size) as buffer:
                assert len(buffer) == size
            assert ("allocate", whole) in scene.watched.steps
        assert sum(step[0] == "allocate" for step in scene.watched.steps if isinstance(step, tuple)) == 3


@pytest.mark.parametrize(
    ("size", "whole"),
    [(0, PAGE), (1, PAGE), (31, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE), (120 * 1024, 1 << 17), (1 << 20, 1 << 20)],
)
def test_a_buffer_has_the_size_asked_for_out_of_a_power_of_two(scene: Scene, size: int, whole: int) -> None:
    with Port(scene.backend, scene.info) as port, port.memory.lend(size) as buffer:
        assert len(buffer) == size
        assert not buffer.readonly
    assert ("allocate", whole) in scene.watched.steps


def test_a_buffer_is_lent_again_after_its_use_and_not_before(scene: Scene) -> None:
    with Port(scene.backend, scene.info) as port:
        with port.memory.lend(512) as first, port.memory.lend(512) as second:
            first[:1] = b"1"
            assert bytes(second[:1]) == b"\0"
        with port.memory.lend(4000) as again, port.memory.lend(100) as other:
            assert {bytes(again[:1]), bytes(other[:1])} == {b"1", b"\0"}
    assert scene.watched.names.count("allocate") == 2
    assert scene.watched.names.count("free") == 2
    scene.assert_all_given_back()


def test_a_buffer_cannot_be_used_after_its_loan(scene: Scene) -> None:
    with Port(scene.backend, scene.info) as port:
        with port.memory.lend(512) as buffer:
            pass
        with pytest.raises(ValueError, match="released"):
            buffer[0] = 1


def test_a_buffer_comes_back_also_after_an_exception(scene: Scene) -> None:
    with Port(scene.backend, scene.info) as port:
        with pytest.raises(KeyboardInterrupt), port.memory.lend(512):
            raise KeyboardInterrupt
        with port.memory.lend(512):
            pass
    assert scene.watched.names.count("allocate") == 1
    scene.assert_all_given_back()


def test_every_buffer_is_freed_although_one_is_still_in_use(scene: Scene) -> None:
    port = Port(scene.backend, scene.info)
    with port.memory.lend(1), port.memory.lend(1), port.memory.lend(10_000):
        pass
    scene.watched.before(scene.watched.steps.index(("allocate", 1 << 14)) + 4, raising(BufferError("in use")))
    with pytest.raises(BufferError):
        port.close()
    assert scene.watched.names[-4:] == ["free", "free", "free", "close"]
    assert scene.watched.handle is not None
    assert scene.watched.handle.outstanding == 1
    assert scene.bus.handles == ()
    assert scene.driver == "usb-storage"


def test_a_buffer_can_be_used_if_another_thread_closes_the_port_while_it_is_lent(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an unplug, the port is closed while commands begin; they must raise DeviceGone, not ValueError."""
    port = Port(scene.backend, scene.info)
    allocate = port.memory.allocate

    def allocate_and_close(size: int) -> memoryview:
        whole = allocate(size)
        port.close()
        return whole

    monkeypatch.setattr(port.memory, "allocate", allocate_and_close)
    with port.memory.lend(64) as buffer:
        buffer[:] = bytes(64)
    assert scene.watched.names.count("free") == 1


def test_threads_never_share_a_buffer(scene: Scene) -> None:
    clashes = []

    def work(port: Port, mark: bytes) -> None:
        for _ in range(200):
            with port.memory.lend(64) as buffer:
                buffer[:1] = mark
                clashes.append(bytes(buffer[:1]) != mark)

    with Port(scene.backend, scene.info) as port:
        threads = [threading.Thread(target=work, args=(port, bytes([number]))) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not any(clashes)
    assert scene.watched.names.count("allocate") <= 4
    scene.assert_all_given_back()


# --- transfers and requests -----------------------------------------------------------------------


@pytest.mark.slow
def test_bytes_go_through_the_bulk_endpoints_with_their_code_and_count(scene: Scene) -> None:
    with Port(scene.backend, scene.info) as port, port.memory.lend(31) as cbw, port.memory.lend(13) as csw:
        cbw[:] = b"USBC" + bytes((7, 0, 0, 0)) + bytes(6) + b"\6" + bytes(16)
        assert port.write(cbw, 1000) == (Code.OK, 31)
        assert port.read(csw, 1000) == (Code.OK, 13)
        assert csw[:8] == b"USBS" + bytes((7, 0, 0, 0))
        assert port.read(csw, 1) == (Code.TIMEOUT, 0)
    endpoints = [step[1] for step in scene.watched.steps if step[0] == "bulk"]
    assert endpoints == [0x02, 0x81, 0x81]


def test_check_lets_ok_pass_and_raises_for_the_rest(scene: Scene) -> None:
    with Port(scene.backend, scene.info) as port:
        port.check(Code.OK, "reading")
        with pytest.raises(DeviceTimeout, match=r"^reading, 1-1: "):
            port.check(Code.TIMEOUT, "reading")


def test_control_requests_carry_data_both_ways(scene: Scene) -> None:
    with Port(scene.backend, scene.info) as port:
        assert port.control_in(0xA1, 0xFE, 0, 0, 1, 1.5) == b"\0"  # GET MAX LUN
        port.control_out(0x21, 0xFF, 0, 0, b"", 2)  # mass storage reset
        with pytest.raises(TransferStalled, match="control request 33h to"):
            port.control_in(0xA1, 0x33, 0, 0, 1, 1)
    assert ("control_in", 0xA1, 0xFE, 0, 0, 1, 1500) in scene.watched.steps
    assert ("control_out", 0x21, 0xFF, 0, 0, b"", 2000) in scene.watched.steps


@pytest.mark.parametrize("timeout", [0.0004, 0.0, -1.0])
def test_a_timeout_that_is_all_but_over_does_not_become_no_timeout(scene: Scene, timeout: float) -> None:
    """libusb waits for ever when it is told 0 ms."""
    with Port(scene.backend, scene.info) as port:
        port.control_in(0xA1, 0xFE, 0, 0, 1, timeout)
        port.control_out(0x21, 0xFF, 0, 0, b"", timeout)
    assert [step[-1] for step in scene.watched.steps if step[0].startswith("control_")] == [1, 1]


def test_a_halt_is_cleared_at_the_endpoint_that_is_meant(scene: Scene) -> None:
    with Port(scene.backend, scene.info) as port:
        port.clear_halt_in()
        port.clear_halt_out()
        scene.unplug()
        with pytest.raises(DeviceGone, match="clearing a halt of"):
            port.clear_halt_in()
    assert [step[1:] for step in scene.watched.steps if step[0] == "clear_halt"] == [(0x81,), (0x02,), (0x81,)]


# --- port reset -----------------------------------------------------------------------------------


def test_a_reset_selects_our_alternate_setting_again() -> None:
    scene = Scene(uas=True)
    with Port(scene.backend, scene.info) as port:
        before = len(scene.watched.steps)
        port.reset()
        assert scene.watched.steps[before:] == [("reset",), ("set_alternate", 0, 0)]


def test_a_reset_after_which_the_device_is_another_one_says_that_it_is_gone(scene: Scene) -> None:
    with Port(scene.backend, scene.info) as port:
        scene.watched.before(len(scene.watched.steps), raising(UsbError(Code.NOT_FOUND)))
        with pytest.raises(DeviceGone, match="as another device"):
            port.reset()
    scene.assert_all_given_back()


def test_a_reset_that_fails_is_a_public_error_and_selects_nothing() -> None:
    scene = Scene(uas=True)
    with Port(scene.backend, scene.info) as port:
        before = len(scene.watched.steps)
        scene.watched.before(before, raising(UsbError(Code.IO)))
        with pytest.raises(TransportError, match="resetting"):
            port.reset()
        assert scene.watched.steps[before:] == [("reset",)]
    scene.assert_all_given_back()


@pytest.mark.parametrize(("then", "raised"), [(Code.NO_DEVICE, DeviceGone), (Code.IO, TransportError)])
def test_a_reset_that_fails_while_the_device_is_removed_says_that_it_is_gone(then: Code, raised: type) -> None:
    """Linux then refuses the reset with EINVAL, which libusb calls OTHER: only the next request tells."""
    scene = Scene(uas=False)
    with Port(scene.backend, scene.info) as port:
        before = len(scene.watched.steps)
        scene.watched.before(before, raising(UsbError(Code.OTHER)))
        scene.watched.before(before + 1, raising(UsbError(then)))
        with pytest.raises(TransportError) as failure:
            port.reset()
        assert type(failure.value) is raised
        assert [step[0] for step in scene.watched.steps[before:]] == ["reset", "control_in"]
    scene.assert_all_given_back()


def test_a_stack_is_asked_only_through_the_seam() -> None:
    """The recording stack stands for any other: without it, all is the same."""
    bus = Bus(Stick.formatted())
    (info,) = find(bus)
    with Port(bus, info):
        assert bus.driver(info.device, 0) is None
    assert bus.driver(info.device, 0) == "usb-storage"
    assert bus.handles == ()
