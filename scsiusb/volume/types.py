"""The types of partitions that are often seen, by their codes in the two kinds of table."""

from __future__ import annotations

from typing import Final
from uuid import UUID

EFI_SYSTEM: Final = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BASIC_DATA: Final = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
LINUX: Final = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
LINUX_SWAP: Final = UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f")

GPT_TYPES: Final = {
    EFI_SYSTEM: "EFI system",
    BASIC_DATA: "Microsoft basic data",
    LINUX: "Linux",
    LINUX_SWAP: "Linux swap",
    UUID("21686148-6449-6e6f-744e-656564454649"): "BIOS boot",
    UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae"): "Microsoft reserved",
    UUID("de94bba4-06d1-4d40-a16a-bfd50179d6ac"): "Windows recovery",
    UUID("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"): "Microsoft LDM metadata",
    UUID("af9b60a0-1431-4f62-bc68-3311714a69ad"): "Microsoft LDM data",
    UUID("a19d880f-05fc-4d3b-a006-743f0f84911e"): "Linux RAID",
    UUID("e6d6d379-f507-44c2-a23c-238f2a3df928"): "Linux LVM",
    UUID("44479540-f297-41b2-9af7-d131d5f0458a"): "Linux root, x86",
    UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"): "Linux root, x86-64",
    UUID("69dad710-2ce4-4e3c-b16c-21a1d49abed3"): "Linux root, Arm",
    UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"): "Linux root, Arm 64",
    UUID("933ac7e1-2eb4-4f13-b844-0e14e2aef915"): "Linux home",
    UUID("bc13c2ff-59e6-4262-a352-b275fd6f7172"): "Linux extended boot",
    UUID("48465300-0000-11aa-aa11-00306543ecac"): "Apple HFS+",
    UUID("7c3457ef-0000-11aa-aa11-00306543ecac"): "Apple APFS",
    UUID("426f6f74-0000-11aa-aa11-00306543ecac"): "Apple boot",
    UUID("516e7cb4-6ecf-11d6-8ff8-00022d09712b"): "FreeBSD data",
    UUID("516e7cb6-6ecf-11d6-8ff8-00022d09712b"): "FreeBSD UFS",
    UUID("516e7cba-6ecf-11d6-8ff8-00022d09712b"): "FreeBSD ZFS",
    UUID("fe3a2a5d-4f32-41a7-b725-accc3285a309"): "ChromeOS kernel",
    UUID("3cb8e202-3b7e-47dd-8a3c-7ff2a13cfcec"): "ChromeOS root",
}
MBR_TYPES: Final = {
    0x00: "empty",
    0x01: "FAT12",
    0x04: "FAT16, small",
    0x05: "extended",
    0x06: "FAT16",
    0x07: "NTFS, exFAT",
    0x0B: "FAT32",
    0x0C: "FAT32, LBA",
    0x0E: "FAT16, LBA",
    0x0F: "extended, LBA",
    0x11: "hidden FAT12",
    0x14: "hidden FAT16, small",
    0x16: "hidden FAT16",
    0x17: "hidden NTFS",
    0x1B: "hidden FAT32",
    0x1C: "hidden FAT32, LBA",
    0x1E: "hidden FAT16, LBA",
    0x27: "Windows recovery",
    0x42: "Microsoft LDM",
    0x82: "Linux swap",
    0x83: "Linux",
    0x85: "Linux extended",
    0x8E: "Linux LVM",
    0xA5: "FreeBSD",
    0xA6: "OpenBSD",
    0xA9: "NetBSD",
    0xAF: "Apple HFS+",
    0xBF: "Solaris",
    0xDA: "no file system",
    0xEA: "Linux extended boot",
    0xEE: "GPT",
    0xEF: "EFI system",
    0xFB: "VMware VMFS",
    0xFD: "Linux RAID",
}


def type_code(kind: int | UUID) -> str:
    """Return the type as digits: two in hex for an MBR's, as fdisk shows it, or the text of a UUID."""
    return str(kind) if isinstance(kind, UUID) else f"{kind:02x}"


def type_text(kind: int | UUID) -> str:
    """Return the type's name, or its digits if it has none here."""
    name = GPT_TYPES.get(kind) if isinstance(kind, UUID) else MBR_TYPES.get(kind)
    return name or type_code(kind)
