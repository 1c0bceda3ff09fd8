"""The console script; `--version` alone is answered without loading anything else."""

from __future__ import annotations

import sys

from scsiusb._version import __version__


def main() -> int:
    if sys.argv[1:] == ["--version"] and _say_version():
        return 0
    from scsiusb.cli.app import run

    return run(sys.argv[1:])


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
