"""Runs the fuzzer: python -m fuzz."""

from __future__ import annotations

import sys

from fuzz.main import main

sys.exit(main(sys.argv[1:]))
