"""Start the guest, pass on what its command says, and end it when it dies or hangs."""

from __future__ import annotations

import ctypes
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import zoo
from .host import CACHE, LabError
from .marks import Gate

GUEST_SHARE = "/run/lab"
# Drivers of the emulated machine that take seconds to start and that nothing here uses; and the USB controller's,
# so that the zoo appears when udev has done with everything else.
UNWANTED = "xhci_pci,kvm_amd,kvm_intel,powernow_k8,acpi_cpufreq,iTCO_wdt,psmouse,i6300esb,pcspkr,ccp,joydev"
TIMED_OUT = 124
TAIL = 60  # lines shown of each log when the guest fails
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Limits:
    """How long the guest may take to boot, how long its command may be silent, and how long it may live: seconds."""

    boot: float
    silence: float
    total: float


def boot_command(image: Path, work: Path, devices: list[str], shell: bool) -> list[str]:
    """Return the command line that boots the kernel image."""
    words = [str(CACHE / "virtme" / "bin" / "vng"), "--run", str(image), "--name", "scsiusb-lab", "--user", "root"]
    words += ["--force-9p", "--disable-kvm", "--disable-microvm", "--memory", "2G", "--cpus", "2"]
    words += ["--rodir", f"{zoo.GUEST_ZOO}={work / 'zoo'}", "--rwdir", f"{GUEST_SHARE}={work / 'share'}"]
    arguments = [f"modprobe.blacklist={UNWANTED}", "usb-storage.delay_use=0"]
    if not shell:
        # virtme-ng throws the kernel's first console away; warnings and worse go to a second one.
        arguments += ["console=hvc0", "loglevel=5"]
    words += [word for argument in arguments for word in ("--append", argument)]
    words.append(f"--qemu-opts={shlex.join([*devices, *_plumbing(work)])}")
    if shell:
        return [*words, "--disable-monitor", "--shell", f"{GUEST_SHARE}/guest.sh"]
    return [*words, "--exec", f"sh {GUEST_SHARE}/guest.sh"]


def _plumbing(work: Path) -> list[str]:
    """Attach the images, and QEMU's own QMP socket to a port in the guest: tests plug devices through it."""
    words = ["-chardev", f"socket,id=qmp,path={work / 'qmp'},server=on,wait=off", "-mon", "chardev=qmp,mode=control"]
    words += ["-chardev", f"socket,id=qmp-port,path={work / 'qmp'},server=off"]
    words += ["-device", "virtio-serial-pci,id=lab-serial"]
    words += ["-chardev", f"file,id=kernel-log,path={work / 'kernel.log'}"]
    words += ["-device", "virtconsole,bus=lab-serial.0,chardev=kernel-log"]
    words += ["-device", "virtserialport,bus=lab-serial.0,chardev=qmp-port,name=scsiusb.qmp"]
    for name in ("python", "checkout"):
        options = f"driver=raw,node-name=image-{name},read-only=on,file.driver=file,file.filename={work}/{name}.img"
        words += ["-blockdev", options, "-device", f"virtio-blk-pci,drive=image-{name},serial={name}"]
    return words


def _environment() -> dict[str, str]:
    """virtme-ng looks for its own programs on PATH, and for depmod and qemu where only root looks."""
    path = f"{CACHE / 'virtme' / 'bin'}:{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    return {**os.environ, "PATH": path}


def interactive(command: list[str], work: Path) -> int:
    """Hand the terminal to the guest."""
    done = subprocess.run(command, cwd=work, env=_environment(), check=False)
    status = work / "share" / "status"
    return int(status.read_text()) if status.exists() else done.returncode or 1


class Guest:
    """A guest that runs one command and ends."""

    def __init__(self, command: list[str], work: Path, limits: Limits) -> None:
        _adopt_orphans()
        self._work = work
        self._limits = limits
        self._log = (work / "console.log").open("wb")
        self._process = subprocess.Popen(
            command,
            cwd=work,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        streams = self._process.stdout, self._process.stderr
        self._streams = [stream for stream in streams if stream is not None]
        self._gates = [Gate(out, self._log) for out in (sys.stdout.buffer, sys.stderr.buffer)]
        self._born = self._spoke = time.monotonic()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._log.close()

    def run(self) -> int:
        """Pass on the command's output until it ends; return its exit status."""
        with selectors.DefaultSelector() as selector:
            for stream, gate in zip(self._streams, self._gates, strict=True):
                selector.register(stream, selectors.EVENT_READ, gate)
            while not all(key.data.ended for key in selector.get_map().values()):
                self._check_limits()
                self._pass_on(selector)
        return self._status()

    def _pass_on(self, selector: selectors.BaseSelector) -> None:
        for key, _ in selector.select(timeout=1.0):
            data = os.read(key.fd, 65536)
            if data:
                self._spoke = time.monotonic()
                key.data.feed(data)
            else:
                selector.unregister(key.fileobj)

    def _check_limits(self) -> None:
        now = time.monotonic()
        limits = self._limits
        if not self._gates[0].begun and now - self._born > limits.boot:
            raise self._failure(f"the guest did not come up in {limits.boot:.0f} s", TIMED_OUT)
        if self._gates[0].begun and now - self._spoke > limits.silence:
            raise self._failure(f"the guest hangs: silent for {limits.silence:.0f} s", TIMED_OUT)
        if now - self._born > limits.total:
            raise self._failure(f"the guest has run for {limits.total:.0f} s, more than it may", TIMED_OUT)

    def _status(self) -> int:
        try:
            return int((self._work / "share" / "status").read_text())
        except FileNotFoundError:
            raise self._failure("the guest died before its command ended", 125) from None

    def _failure(self, message: str, status: int) -> LabError:
        """Show the end of what the guest's console and its kernel said."""
        self._log.flush()
        for path in (self._work / "console.log", self._work / "kernel.log"):
            for line in path.read_bytes().splitlines()[-TAIL:] if path.exists() else []:
                sys.stderr.buffer.write(b"guest: " + line + b"\n")
        sys.stderr.flush()
        return LabError(message, status)

    def _kill(self) -> None:
        """End the whole group, as virtme-ng does not take QEMU along."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(ChildProcessError):
            while True:
                os.wait()
        for stream in self._streams:
            stream.close()


def _adopt_orphans() -> None:
    """Make this process the parent of QEMU when virtme-ng is gone: not every container's init collects the dead."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def keep(work: Path, folder: Path) -> None:
    """Keep what a failed run leaves to read."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in (work / "console.log", work / "kernel.log", work / "share" / "dmesg"):
        if path.exists():
            shutil.copyfile(path, folder / path.name)
