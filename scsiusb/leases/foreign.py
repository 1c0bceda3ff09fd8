"""Decides whether root believes a lease of another user (Linux).

Any user may write a lease with any content. Root believes one only if that gives the user nothing that he could not
do himself: its device is attached now and is the recorded one, and the user may open its node; to recover it, the
interface must have no driver. Nothing here takes longer because of what another user has written.
"""

from __future__ import annotations

import glob
import os
import struct
import sys
from collections.abc import Iterator
from typing import Final

from scsiusb.base.text import comparable
from scsiusb.leases.record import Record, file_name, holding_of, is_surely_of_this_boot
from scsiusb.leases.warden_main import MASS_STORAGE, Kernel

READ_WRITE: Final = 6  # permission bits of a class of users
ACL: Final = "system.posix_acl_access"
# acl(5), include/uapi/linux/posix_acl_xattr.h: a version, then for each entry tag, permissions and id.
ACL_HEADER_SIZE: Final = 4
ACL_ENTRY: Final = struct.Struct("<HHI")
USER: Final = 0x02
GROUP_OBJ: Final = 0x04
GROUP: Final = 0x08
MASK: Final = 0x10


def names(kernel: Kernel) -> Iterator[str]:
    """Yield the names that leases of the attached mass-storage interfaces without a driver have."""
    for path in sorted(glob.glob(f"{glob.escape(kernel.usb)}/devices/*:*")):
        name = os.path.basename(path)
        device = name.partition(":")[0]
        if kernel.attribute(name, "bInterfaceClass") != MASS_STORAGE or os.path.lexists(f"{path}/driver"):
            continue
        place = [kernel.attribute(device, "busnum"), kernel.attribute(device, "devnum")]
        interface = kernel.attribute(name, "bInterfaceNumber")
        if all(each.isdecimal() for each in place) and interface:
            yield file_name(int(place[0]), int(place[1]), int(interface, 16))


def is_trusted(record: Record, owner: int, kernel: Kernel) -> bool:
    """Return whether the user `owner` could hold the device of a lease that he wrote."""
    if not is_surely_of_this_boot(record) or not kernel.has(holding_of(record, None)):
        return False
    device = record.name.partition(":")[0]
    ids = [kernel.attribute(device, name) for name in ("idVendor", "idProduct")]
    if ids != [f"{record.vendor_id:04x}", f"{record.product_id:04x}"]:
        return False
    if comparable(kernel.attribute(device, "serial")) != comparable(record.serial or ""):
        return False
    return may_open(f"{kernel.dev}/bus/usb/{record.bus:03}/{record.number:03}", owner)


def may_open(node: str, uid: int) -> bool:
    """Return whether the user may read and write a device node, by its mode and its access control list."""
    try:
        found = os.stat(node)
    except OSError:
        return False
    if uid == 0:
        return True
    groups = _groups(uid)
    entries = _acl(node)
    if uid == found.st_uid:
        return found.st_mode >> 6 & READ_WRITE == READ_WRITE
    mask = next((permissions for tag, permissions, _ in entries if tag == MASK), READ_WRITE)
    for tag, permissions, which in entries:
        if tag == USER and which == uid:
            return permissions & mask & READ_WRITE == READ_WRITE
    # With an access control list, the mode's bits for the group are the list's mask.
    in_group = [p & mask for tag, p, which in entries if tag == GROUP and which in groups]
    if found.st_gid in groups:
        own = next((p for tag, p, _ in entries if tag == GROUP_OBJ), found.st_mode >> 3)
        in_group.append(own & mask)
    if in_group:
        return any(permissions & READ_WRITE == READ_WRITE for permissions in in_group)
    return found.st_mode & READ_WRITE == READ_WRITE


def _groups(uid: int) -> set[int]:
    """Return the groups of a user; none if he is not known."""
    if sys.platform == "win32":
        return set()
    import pwd

    try:
        user = pwd.getpwuid(uid)
        return set(os.getgrouplist(user.pw_name, user.pw_gid))
    except (KeyError, OSError):
        return set()


def _acl(node: str) -> list[tuple[int, int, int]]:
    """Return the entries of the node's access control list: tag, permissions, id. Empty if it has none."""
    if sys.platform != "linux":
        return []
    try:
        value = os.getxattr(node, ACL)
    except (OSError, AttributeError):
        return []
    end = len(value) - (len(value) - ACL_HEADER_SIZE) % ACL_ENTRY.size
    return list(ACL_ENTRY.iter_unpack(value[ACL_HEADER_SIZE:end]))
