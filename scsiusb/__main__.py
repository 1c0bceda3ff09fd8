"""The console script. `--version` alone is answered without loading anything else, so that it is fast."""

from __future__ import annotations

import gc
import sys

from scsiusb._version import __version__

MANY = 100_000  # objects: more than are made at the start, so that no collection runs then


def main() -> int:
    """Run the command line in `sys.argv` and return the exit status."""
    if sys.argv[1:] == ["--version"] and _print_version():
        return 0
    gc.set_threshold(MANY)
    from scsiusb.cli.app import run

    status = run(sys.argv[1:])
    gc.freeze()  # saves the collection of all objects when the interpreter ends
    return status


def _print_version() -> bool:
    """Print the version; return False if stdout cannot be written: `cli.app` then reports that."""
    try:
        sys.stdout.write(f"scsiusb {__version__}\n")
        sys.stdout.flush()
    except (OSError, AttributeError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
