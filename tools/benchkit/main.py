"""The command line of tools/bench."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from labkit.host import LabError

from benchkit.names import NATIVE, PARTS

ROUNDS = 5
QUICK_ROUNDS = 3  # not fewer: in the first one, the emulator still translates the code of each way
WHAT = "Compare scsiusb with dd, sg_dd, plain pyusb and C, in one boot of the lab; measure its own cost natively."
EPILOG = """\
Examples:
  tools/bench --only random --quick               a quick look at one part
  tools/bench --json now.json --docs              all parts; rewrites the table of docs/speed.md
  tools/bench --native                            large transfers in the lab without QEMU, in a minute or two
  tools/bench --json new.json --compare now.json  did anything get worse?

Exit status 0: everything was measured, and with --compare nothing got worse. 1: something got worse, or could not be
measured. Leave the machine idle while it runs."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print and compare as the arguments say; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.native and (options.docs or not set(options.only) <= set(NATIVE)):
        if options.docs or options.only != PARTS:
            parser.error(f"--native measures {', '.join(NATIVE)} only, and not for the documents")
        options.only = NATIVE
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    signal.signal(signal.SIGTERM, _terminated)
    if options.in_guest:
        from benchkit.guest import measure

        measure(options.only, options.rounds, options.quick)
        return 0
    from benchkit.host import bench

    try:
        return bench(options)
    except LabError as error:
        print(f"tools/bench: error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    raw: Any = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tools/bench", description=WHAT, epilog=EPILOG, formatter_class=raw)
    parts = ",".join(PARTS)
    parser.add_argument(
        "--only", type=_parts, default=PARTS, metavar="PARTS", help=f"measure only these parts, of {parts}"
    )
    parser.add_argument(
        "--rounds", type=_rounds, metavar="N", help=f"number of rounds (default {ROUNDS}; with --quick {QUICK_ROUNDS})"
    )
    parser.add_argument("--quick", action="store_true", help="less work per round and fewer rounds: to try it out")
    parser.add_argument(
        "--native", action="store_true", help="measure in the lab without QEMU: large transfers to gadgets only"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with FILE, which an earlier --json wrote")
    parser.add_argument(
        "--worse", type=float, default=10, metavar="PERCENT", help="what counts as worse (default: by more than 10)"
    )
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="measure nothing; use the figures in FILE"
    )
    parser.add_argument("--docs", action="store_true", help="rewrite the table in docs/speed.md")
    parser.add_argument("--in-guest", action="store_true", help=argparse.SUPPRESS)
    return parser


def _parts(text: str) -> tuple[str, ...]:
    words = text.split(",")
    unknown = [word for word in words if word not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in words)


def _rounds(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number
