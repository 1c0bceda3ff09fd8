"""The console script; `--version` alone is answered without loading anything else."""

from __future__ import annotations

import sys

from scsiusb._version import __version__


def main() -> int:
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"scsiusb {__version__}\n")
        return 0
    from scsiusb.cli.app import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
