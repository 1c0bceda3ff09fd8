"""The command line of tools/campaign."""

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

WHAT = """\
Crash scsiusb, unplug its devices, break the devices, or run it for long, many times; after each time, nothing may be
left held, and no data may be wrong."""
EPILOG = """\
Examples:
  tools/lab --silence 600 run -- tools/campaign crash --seed 7      # in the lab
  tools/campaign crash --native --kills 2000                        # in the lab without QEMU
  .venv/bin/python tools/campaign soak --device virtual:            # anywhere

Prints one JSON object per line, the summary last, and a verdict on stderr. Exit status 0: no fault was found. The same
seed makes the same choices; the timing differs from run to run."""


def main(arguments: Sequence[str]) -> int:
    """Run one campaign; return the exit status."""
    options = _parser().parse_args(arguments)
    # `many` needs QEMU's sticks, and `table` no device: they have no such option.
    if getattr(options, "native", False) and "SCSIUSB_LAB" not in os.environ:
        return in_native_lab(options, arguments)
    with ExitStack() as stack:
        out = stack.enter_context(options.output.open("w")) if options.output else sys.stdout
        run: Callable[[argparse.Namespace, Report], None] = import_module(f"campaigns.{options.campaign}").run
        report = Report(options.campaign, options.seed, out)
        run(options, report)
        return report.close()


def _parser() -> argparse.ArgumentParser:
    raw: Any = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tools/campaign", description=WHAT, epilog=EPILOG, formatter_class=raw)
    campaigns = parser.add_subparsers(dest="campaign", required=True, metavar="CAMPAIGN")
    crash = campaigns.add_parser("crash", help="kill a program that uses a device, at random instants (lab)")
    crash.add_argument("--kills", type=int, default=200, metavar="N", help="number of kills (default 200)")
    crash.add_argument(
        "--inside", type=float, default=0.3, metavar="PART", help="share of the kills that must hit a command"
    )
    crash.add_argument(
        "--within", type=float, default=2.0, metavar="S", help="time limit for the recovery, in seconds after the kill"
    )
    crash.add_argument("--on", default="scratch", metavar="NAME", help="device of the lab's zoo (default scratch)")
    plug = campaigns.add_parser("plug", help="unplug a device that is in use, and plug it in again (lab)")
    plug.add_argument("--cycles", type=int, default=100, metavar="N", help="number of unplugs (default 100)")
    plug.add_argument(
        "--within", type=float, default=1.0, metavar="S", help="time limit for the notice to each client, in seconds"
    )
    many = campaigns.add_parser("many", help="plug in and unplug many sticks at the same time (lab)")
    many.add_argument("--sticks", type=int, default=16, metavar="N", help="number of sticks (default 16)")
    many.add_argument("--rounds", type=int, default=5, metavar="N", help="number of rounds (default 5)")
    soak = campaigns.add_parser("soak", help="run many commands, then open and close many times")
    soak.add_argument("--device", metavar="DEVICE", help="as for scsiusb (default: the lab's stick)")
    soak.add_argument("--commands", type=int, default=100_000, metavar="N", help="number of commands (default 100000)")
    soak.add_argument("--opens", type=int, default=1_000, metavar="N", help="number of openings (default 1000)")
    faults = campaigns.add_parser("faults", help="try every fault of the virtual stick with each operation")
    faults.add_argument(
        "--stage",
        choices=("virtual", "usbip", "linux", "uas-high", "uas-super"),
        default="virtual",
        help="usbip, linux: lab",
    )
    faults.add_argument("--only", default="", metavar="TEXT", help="only scenarios whose name contains TEXT")
    faults.add_argument(
        "--every", type=int, default=1, metavar="N", help="only every N-th scenario, counted from the seed"
    )
    faults.add_argument("--timeout", type=float, default=2.0, metavar="S", help="timeout of a command, in seconds")
    writes = campaigns.add_parser("writes", help="write to a stick that fails in every phase")
    writes.add_argument("--writes", type=int, default=300, metavar="N", help="number of writes (default 300)")
    writes.add_argument("--stage", choices=("virtual", "usbip"), default="virtual", help="usbip: lab")
    writes.add_argument("--timeout", type=float, default=1.0, metavar="S", help="timeout of a command, in seconds")
    interrupts = campaigns.add_parser("interrupts", help="raise exceptions at every bytecode, and send real signals")
    interrupts.add_argument(
        "--every", type=int, default=1, metavar="N", help="only at every N-th instruction, counted from the seed"
    )
    interrupts.add_argument(
        "--seconds", type=float, default=60.0, metavar="S", help="time limit for each scenario and error (default 60)"
    )
    interrupts.add_argument("--signals", type=int, default=10_000, metavar="N", help="signals (default 10000; 0: none)")
    jobs = campaigns.add_parser("jobs", help="interrupt dump, restore, rescue and erase, which go on (lab)")
    jobs.add_argument("--interruptions", type=int, default=40, metavar="N", help="of each job (default 40)")
    jobs.add_argument("--job", choices=("all", "dump", "restore", "rescue", "erase"), default="all")
    jobs.add_argument("--size", type=int, default=48, metavar="MIB", help="size of the stick (default 48)")
    mixed = campaigns.add_parser("mixed", help="random reads and writes, several in flight, against a model (lab)")
    mixed.add_argument("--operations", type=int, default=100_000, metavar="N", help="number of them (default 100000)")
    mixed.add_argument("--on", default="uas", metavar="NAME", help="device of the lab's zoo (default uas)")
    mixed.add_argument("--transport", choices=("auto", "bot", "uas"), default="auto", help="the protocol")
    table = campaigns.add_parser("table", help="make the table of docs/faults.md from runs of `faults`")
    table.add_argument("runs", type=Path, nargs="+", metavar="JSON", help="the output of `faults`, one file per stage")
    table.add_argument(
        "--document", type=Path, default=Path("docs/faults.md"), metavar="FILE", help="default: docs/faults.md"
    )
    for campaign in (crash, plug, many, soak, faults, writes, jobs, mixed, interrupts, table):
        campaign.add_argument("--seed", type=int, default=1, metavar="N", help="of the random choices (default 1)")
        campaign.add_argument("--output", type=Path, metavar="FILE", help="write the JSON lines to FILE, not to stdout")
    for campaign in (crash, plug, soak, faults, writes, jobs, mixed):
        campaign.add_argument("--native", action="store_true", help="start the lab without QEMU and run there")
        campaign.add_argument("--zoo", default="tests", metavar="NAME", help="with --native: which devices it has")
    return parser
