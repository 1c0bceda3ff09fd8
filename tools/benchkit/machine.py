"""Facts about the machine that the figures come from."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from labkit.host import ROOT, find, output

NO_EMULATOR = "none, the native lab's User-Mode Linux"


def machine(native: bool) -> dict[str, str]:
    """Return the facts by name, in the order in which they are printed."""
    facts = {
        "CPU": f"{os.cpu_count()} of {cpu_model()}",
        "kernel": platform.release(),
        "native python": platform.python_version(),
        "emulator": NO_EMULATOR if native else f"QEMU {qemu_version()}, TCG",
    }
    commit = _commit()
    return {**facts, "commit": commit} if commit else facts


def cpu_model() -> str:
    """Return the CPU model, as /proc/cpuinfo has it."""
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def qemu_version() -> str:
    """Return the version of QEMU, or "unknown"."""
    program = find("qemu-system-x86_64")
    found = re.search(r"version (\S+)", output([program, "--version"])) if program else None
    return found[1] if found else "unknown"


def _commit() -> str:
    """Return the commit, with a plus if the tree has uncommitted changes; an empty string without git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return ""
    return done.stdout.strip()
