"""The release check: build, compare, install, smoke test; run as tools/release-check."""
