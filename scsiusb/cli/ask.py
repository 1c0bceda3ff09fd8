"""Asks the person at the terminal before something is overwritten."""

from __future__ import annotations

import sys

import click

from scsiusb.cli.failure import Refused
from scsiusb.cli.output import naming, say


def somebody_is_there() -> bool:
    """Is there a person who sees the question and can answer?"""
    return sys.stdin.isatty() and sys.stderr.isatty()


def require_somebody(doing: str) -> None:
    """Raises Refused where there is nobody to ask."""
    if not somebody_is_there():
        raise Refused(f"nobody is at the terminal to confirm {doing}", "give --yes")


def confirm(question: str) -> None:
    """Asks once. Raises Refused for any answer but yes, the end of the input too."""
    with naming("stderr"):
        click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = ""
    try:
        with naming("stdin"):
            answer = sys.stdin.readline()
    finally:
        if not answer.endswith("\n"):  # what comes next begins a line
            say("")
    if answer.strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed, and nothing was written", "answer y, or give --yes")
