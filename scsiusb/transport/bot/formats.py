"""Wire formats of Bulk-Only Transport: the two wrappers (BOT 5) and the class requests (BOT 3)."""

from __future__ import annotations

from typing import Final

from construct import Bytes, Const, Int8ul, Int32ul, Struct

from scsiusb.base.packing import ByteCodec

CBW_SIGNATURE: Final = b"USBC"
CSW_SIGNATURE: Final = b"USBS"
MAX_CDB: Final = 16
LONG_CDB_SUBCLASSES: Final = (0x02, 0x04, 0x05)  # MMC (SFF-8020i), UFI, SFF-8070i
LONG_CDB: Final = 12  # bytes of each of their command blocks, shorter ones filled up with zeros
MAX_LUN: Final = 15  # bCBWLUN has four bits

CBW: Final = Struct(  # BOT 5.1
    "signature" / Const(CBW_SIGNATURE, Bytes(4)),  # dCBWSignature
    "tag" / Int32ul,  # dCBWTag
    "length" / Int32ul,  # dCBWDataTransferLength
    "flags" / Int8ul,  # bmCBWFlags
    "lun" / Int8ul,  # bCBWLUN
    "cdb_length" / Int8ul,  # bCBWCBLength
    "cdb" / Bytes(MAX_CDB),  # CBWCB
)
CSW: Final = Struct(  # BOT 5.2
    "signature" / Bytes(4),  # dCSWSignature
    "tag" / Int32ul,  # dCSWTag
    "residue" / Int32ul,  # dCSWDataResidue
    "status" / Int8ul,  # bCSWStatus
)
CBW_CODEC: Final = ByteCodec(CBW)
CSW_CODEC: Final = ByteCodec(CSW)

FLAG_DATA_IN: Final = 0x80
STATUS_PHASE_ERROR: Final = 2

CLASS_INTERFACE_OUT: Final = 0x21
CLASS_INTERFACE_IN: Final = 0xA1
MASS_STORAGE_RESET: Final = 0xFF  # BOT 3.1
GET_MAX_LUN: Final = 0xFE  # BOT 3.2


def least_cdb(subclass: int) -> int:
    """Return the least bCBWCBLength that devices of an interface subclass (bInterfaceSubClass) expect."""
    return LONG_CDB if subclass in LONG_CDB_SUBCLASSES else 1
