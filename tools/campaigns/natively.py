"""A campaign that starts the native lab for itself: its JSON lines and its verdict come out here.

The guest's kernel (User-Mode Linux 6.12) panics when a process is killed while it forks: flush_tlb_mm follows an entry
that such a fork leaves in the map of the memory (0x406, XA_ZERO_ENTRY). A long campaign goes on in another guest then.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType
from typing import TextIO

from labkit.host import PYTHON, ROOT

LIMITS = ("--silence", "600", "--total", "86400")  # seconds
STEPS = {"crash": ("--kills", "kill"), "plug": ("--cycles", "cycle")}  # the option with their number, and their key
GUEST_DIED = 125  # the lab's exit status


def command(arguments: Sequence[str], zoo: str = "tests") -> list[str]:
    """Return the command that runs the same campaign in the native lab, and prints its lines."""
    campaign: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--output":
            next(words)
        elif not word.startswith("--output="):
            campaign.append(word)
    lab = [str(PYTHON), str(ROOT / "tools" / "lab"), "--native", "--zoo", zoo, *LIMITS]
    return [*lab, "run", "--", str(PYTHON), str(ROOT / "tools" / "campaign"), *campaign]


def in_native_lab(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run the campaign in the native lab; return its exit status.

    If the guest dies, go on with the steps that are left in another one, with another seed.
    """
    signal.signal(signal.SIGTERM, _terminated)
    option, key = STEPS.get(options.campaign, ("", ""))
    left, seed, has_faults, words = getattr(options, option[2:], 0), options.seed, False, list(arguments)
    with ExitStack() as stack:
        out = stack.enter_context(options.output.open("w")) if options.output else sys.stdout
        while True:
            status, done, faults = _in_one_guest(command(words, options.zoo), out, key)
            has_faults, left, seed = has_faults or faults > 0, left - done, seed + 1
            if status != GUEST_DIED or not done or left <= 0:
                return status or int(has_faults)
            print(f"{options.campaign}: the guest died after {done}; {left} are left", file=sys.stderr, flush=True)
            words = [*_without(_without(words, option), "--seed"), option, str(left), "--seed", str(seed)]


def _in_one_guest(lab: Sequence[str], out: TextIO, key: str) -> tuple[int, int, int]:
    """Run the lab; return its status, the number of steps, and of those with a fault."""
    done = faults = 0
    with subprocess.Popen(lab, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                out.write(line)
                out.flush()
                if key and line.startswith(f'{{"{key}"'):
                    done += 1
                    faults += not json.loads(line)["ok"]
            return process.wait(), done, faults
        except BaseException:
            process.terminate()  # it ends its guest
            raise


def _without(words: Sequence[str], option: str) -> list[str]:
    """Return the words without an option and its value."""
    kept, rest = [], iter(words)
    for word in rest:
        if word == option:
            next(rest)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
