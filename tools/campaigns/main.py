"""The campaigns' command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from campaigns.natively import in_native_lab
from campaigns.report import Report

EPILOG = """\
in the lab:     tools/lab --silence 600 run -- tools/campaign crash --seed 7
without QEMU:   tools/campaign crash --native --kills 2000
anywhere:       .venv/bin/python tools/campaign soak --device virtual:

Prints a JSON object a line, the last one the summary, and a verdict on stderr.
Exit status 0: all held. The seed makes the choices the same; the moments are the machine's."""


def main(arguments: Sequence[str]) -> int:
    """Run one campaign; return the exit status."""
    options = _parser().parse_args(arguments)
    # `many` needs QEMU's sticks, and `table` no device: they have no such option.
    if getattr(options, "native", False) and "SCSIUSB_LAB" not in os.environ:
        return in_native_lab(arguments, options.output)
    with ExitStack() as stack:
        out = stack.enter_context(options.output.open("w")) if options.output else sys.stdout
        run: Callable[[argparse.Namespace, Report], None] = import_module(f"campaigns.{options.campaign}").run
        report = Report(options.campaign, options.seed, out)
        run(options, report)
        return report.close()


def _parser() -> argparse.ArgumentParser:
    raw: Any = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tools/campaign", description=__doc__, epilog=EPILOG, formatter_class=raw)
    campaigns = parser.add_subparsers(dest="campaign", required=True, metavar="CAMPAIGN")
    crash = campaigns.add_parser("crash", help="kill a program that uses a device, at random instants (lab)")
    crash.add_argument("--kills", type=int, default=200, metavar="N")
    crash.add_argument("--inside", type=float, default=0.3, metavar="PART", help="of the kills, at least: in a command")
    crash.add_argument("--within", type=float, default=2.0, metavar="S", help="of the death all must be right again")
    plug = campaigns.add_parser("plug", help="unplug and plug in a device that is in use (lab)")
    plug.add_argument("--cycles", type=int, default=100, metavar="N")
    plug.add_argument("--within", type=float, default=1.0, metavar="S", help="of the unplug each client must be told")
    many = campaigns.add_parser("many", help="plug in and unplug many sticks at the same time (lab)")
    many.add_argument("--sticks", type=int, default=16, metavar="N")
    many.add_argument("--rounds", type=int, default=5, metavar="N")
    soak = campaigns.add_parser("soak", help="many commands, many openings")
    soak.add_argument("--device", metavar="DEVICE", help="as for scsiusb; default: the lab's stick")
    soak.add_argument("--commands", type=int, default=100_000, metavar="N")
    soak.add_argument("--opens", type=int, default=1_000, metavar="N")
    faults = campaigns.add_parser("faults", help="every fault of the virtual stick, and what comes of it")
    faults.add_argument("--stage", choices=("virtual", "usbip", "linux"), default="virtual", help="the last two: lab")
    faults.add_argument("--only", default="", metavar="TEXT", help="the scenarios with this in their name")
    faults.add_argument("--every", type=int, default=1, metavar="N", help="only one scenario of N, by the seed")
    faults.add_argument("--timeout", type=float, default=2.0, metavar="S", help="of a command")
    writes = campaigns.add_parser("writes", help="writes to a stick that fails in every phase")
    writes.add_argument("--writes", type=int, default=300, metavar="N")
    writes.add_argument("--stage", choices=("virtual", "usbip"), default="virtual", help="the last: lab")
    writes.add_argument("--timeout", type=float, default=1.0, metavar="S", help="of a command")
    table = campaigns.add_parser("table", help="of the runs of `faults`, for the documents")
    table.add_argument("runs", type=Path, nargs="+", metavar="JSON", help="what `faults` printed, of each stage")
    table.add_argument("--document", type=Path, default=Path("docs/faults.md"), metavar="FILE")
    for campaign in (crash, plug, many, soak, faults, writes, table):
        campaign.add_argument("--seed", type=int, default=1, metavar="N")
        campaign.add_argument("--output", type=Path, metavar="FILE", help="for the JSON lines, instead of stdout")
    for campaign in (crash, plug, soak, faults, writes):
        campaign.add_argument("--native", action="store_true", help="start the native lab, and do it there")
    return parser
