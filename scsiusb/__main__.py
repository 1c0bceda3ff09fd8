"""The console script; `--version` alone is answered without loading anything else."""

from __future__ import annotations

import gc
import sys

from scsiusb._version import __version__

MANY = 100_000  # objects: more than starting makes, of which none is garbage


def main() -> int:
    if sys.argv[1:] == ["--version"] and _say_version():
        return 0
    gc.set_threshold(MANY)
    from scsiusb.cli.app import run

    status = run(sys.argv[1:])
    gc.freeze()  # the interpreter need not look at all of it again to end
    return status


def _say_version() -> bool:
    """False where there is no stdout to say it to: the long way has words for that."""
    try:
        sys.stdout.write(f"scsiusb {__version__}\n")
        sys.stdout.flush()
    except (OSError, AttributeError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
