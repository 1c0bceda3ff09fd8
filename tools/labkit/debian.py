"""Debian's packages, also on a machine of another distribution; none of them is installed here."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from .host import CACHE, run, say
from .packages import apt_get, install, installed

DEBIAN = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def download(package: str, folder: Path, options: Sequence[str]) -> Path:
    """Fetch a package's file into the folder, with the options of `sources`; return its path."""
    say(f"fetching {package}")
    run(["sh", "-c", 'cd "$0" && exec apt-get -q "$@"', folder, *options, "download", package])
    return next(folder.glob("*.deb"))


def sources() -> list[str]:
    """Return apt's options: none on Debian, elsewhere a private list with Debian's archive."""
    if platform.freedesktop_os_release().get("ID") == "debian":
        apt_get("update")
        return []
    if not installed("debian-archive-keyring"):
        install(["debian-archive-keyring"])
    apt = CACHE / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    lines = (
        f"deb [arch=amd64 signed-by={KEYRING}] http://deb.debian.org/debian {DEBIAN} main",
        f"deb [arch=amd64 signed-by={KEYRING}] http://deb.debian.org/debian-security {DEBIAN}-security main",
    )
    (apt / "sources.list").write_text("\n".join(lines) + "\n")
    settings = {
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt / "cache",
        "APT::Sandbox::User": "",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    run(["apt-get", "-q", *options, "update"])
    return options
