"""Make the backing files of a native zoo, in the guest: python -m labkit.fill ZOO FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from labkit import zoo

if __name__ == "__main__":
    zoo.fill(Path(sys.argv[2]), zoo.NATIVE_ZOOS[sys.argv[1]])
