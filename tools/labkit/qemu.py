"""The guest in QEMU: a distribution's own kernel, and devices of QEMU's and of the guest's kernel."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import packages, zoo
from .guest import Boot
from .host import CACHE, GUEST_SHARE
from .images import checkout_image, python_image, python_paths
from .kernel import kernel

# Drivers of the emulated machine that take seconds to start and that nothing here uses; and the USB controller's,
# so that the zoo appears when udev has done with everything else.
UNWANTED = "xhci_pci,kvm_amd,kvm_intel,powernow_k8,acpi_cpufreq,iTCO_wdt,psmouse,i6300esb,pcspkr,ccp,joydev"

# On a busy host the emulated processors stand still for seconds: that is no lock-up of the guest's kernel.
STARVED = ("nosoftlockup", "rcupdate.rcu_cpu_stall_suppress=1", "tsc=nowatchdog")


class Qemu:
    """Boots the kernel under emulation by virtme-ng."""

    name = "qemu"
    zoos: Mapping[str, Sequence[zoo.Device]] = zoo.ZOOS
    scripts: Sequence[str] = ("qemu.sh",)

    def prepare(self) -> None:
        """Install and make what is missing."""
        packages.prepare()
        packages.qemu()
        self._image, self._python = kernel(), python_image()

    def furnish(self, work: Path, devices: Sequence[zoo.Device]) -> dict[str, object]:
        """Fill the work folder; return the settings for the guest's script."""
        (work / "zoo").mkdir()
        zoo.fill(work / "zoo", devices)
        self._devices = zoo.qemu_options(work / "zoo", devices)
        (work / "python.img").symlink_to(self._python)
        checkout_image(work / "checkout.img")
        stdlib, site = python_paths()
        return {"STDLIB": stdlib, "SITE": site}

    def boot(self, work: Path, shell: bool) -> Boot:
        """Return how to boot the kernel image."""
        return Boot(self._command(work, shell), _environment())

    def _command(self, work: Path, shell: bool) -> list[str]:
        words = [str(CACHE / "virtme" / "bin" / "vng"), "--run", str(self._image)]
        words += ["--name", "scsiusb-lab", "--user", "root"]
        words += ["--force-9p", "--disable-kvm", "--disable-microvm", "--memory", "2G", "--cpus", "2"]
        words += ["--rodir", f"{zoo.GUEST_ZOO}={work / 'zoo'}", "--rwdir", f"{GUEST_SHARE}={work / 'share'}"]
        arguments = [f"modprobe.blacklist={UNWANTED}", "usb-storage.delay_use=0", *STARVED]
        if not shell:
            # virtme-ng throws the kernel's first console away; warnings and worse go to a second one.
            arguments += ["console=hvc0", "loglevel=5"]
        words += [word for argument in arguments for word in ("--append", argument)]
        words.append(f"--qemu-opts={shlex.join([*self._devices, *_plumbing(work)])}")
        if shell:
            return [*words, "--disable-monitor", "--shell", f"{GUEST_SHARE}/qemu.sh"]
        return [*words, "--exec", f"sh {GUEST_SHARE}/qemu.sh"]


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
