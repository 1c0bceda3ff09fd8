"""Tables of contents that others published, decoded by us and compared with what they say of them.

Only numbers are taken from the sources. `full_toc` and `toc` make the bytes of a reply where a source has numbers and
not bytes; the other samples are the bytes of the source.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final, NamedTuple

import pytest

from scsiusb.cli.commands.optical import track_rows
from scsiusb.scsi.commands.mmc_disc import FullToc, FullTocEntry, ReadFullToc, ReadSessions, ReadToc, Toc, TocTrack

AUDIO, DATA = 0x0, 0x4  # CONTROL
LEAD_OUT = 0xAA
FIRST, LAST, END, NEXT, LEAD_IN = 0xA0, 0xA1, 0xA2, 0xB0, 0xC0  # points that are no tracks
Time = tuple[int, int, int]  # minutes, seconds, frames
Row = tuple[int, int, int, int, Time, int, Time]  # session, point, ADR, CONTROL, MIN SEC FRAME, ZERO, PMIN PSEC PFRAME


class Entry(NamedTuple):
    """An entry of a full table, in the words of a CloneCD control file; `plba` is what that file says of it."""

    session: int
    point: int
    adr: int
    control: int
    absolute: Time
    zero: int
    place: Time
    plba: int


def full_toc(first: int, last: int, rows: list[Row], announced: int = 0) -> bytes:
    """Return a reply of format 2: a length, the sessions, 11 bytes an entry (MMC-6 READ TOC/PMA/ATIP, 0010b).

    TNO is 0. `announced` is the number of entries if not all of them are in `rows`.
    """
    body = b""
    for session, point, adr, control, absolute, zero, place in rows:
        body += bytes((session, adr << 4 | control, 0, point, *absolute, zero, *place))
    return (2 + 11 * (announced or len(rows))).to_bytes(2, "big") + bytes((first, last)) + body


def toc(first: int, last: int, rows: list[tuple[int, int, int]]) -> bytes:
    """Return a reply of format 0 or 1: a length, first and last, 8 bytes a track (MMC-6 READ TOC/PMA/ATIP, 0000b).

    A row holds CONTROL, track and block; ADR is 1.
    """
    body = b"".join(bytes((0, 0x10 | control, track, 0)) + start.to_bytes(4, "big") for control, track, start in rows)
    return (2 + len(body)).to_bytes(2, "big") + bytes((first, last)) + body


def starts(found: Toc) -> list[tuple[int, int, bool]]:
    return [(track.track, track.start, track.is_data) for track in found.tracks]


def tracks(found: FullToc) -> list[tuple[int, int, int, bool]]:
    """Return session, number, first block, and whether it holds data, of each track."""
    rows = [entry for entry in found.entries if entry.point < 0x64]
    return [(entry.session, entry.point, entry.lba, bool(entry.control & DATA)) for entry in rows]


def point(found: FullToc, session: int, number: int) -> FullTocEntry:
    (entry,) = [entry for entry in found.entries if (entry.session, entry.point) == (session, number)]
    return entry


def session_rows(found: FullToc) -> list[tuple[int, int, int, int, int]]:
    """Return number, first and last track, lead-out and disc type of each session."""
    return [
        (
            number,
            point(found, number, FIRST).p_minute,
            point(found, number, LAST).p_minute,
            point(found, number, END).lba,
            point(found, number, FIRST).p_second,
        )
        for number in range(found.first, found.last + 1)
    ]


def musicbrainz(found: list[int], lead_out: int) -> str:
    """Return the disc ID of audio tracks that begin at blocks `found` (https://musicbrainz.org/doc/Disc_ID_Calculation)."""
    places = [lead_out, *found] + [-150] * (99 - len(found))
    text = f"01{len(found):02X}" + "".join(f"{place + 150:08X}" for place in places)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest, b"._").decode().replace("=", "-")


def musicbrainz_of(found: FullToc) -> str:
    """Return the disc ID of the audio tracks of the first session."""
    audio = [start for session, _, start, is_data in tracks(found) if session == 1 and not is_data]
    return musicbrainz(audio, point(found, 1, END).lba)


# https://github.com/simpkins/amass, test/test_data.py: what a drive answered for an audio CD of 11 tracks. What the
# program there says of it is in test/cdrom_tests.py; the disc IDs are in test/mb_tests.py.
GLASSWORKS: Final = (
    "0062 01 0b  0010 0100 00000000  0010 0200 000070c3  0010 0300 0000da16  0010 0400 000160f5  0010 0500 0001cbc4"
    "0010 0600 00024d06  0010 0700 0002b798  0010 0800 0002cc47  0010 0900 0003309a  0010 0a00 00036cab"
    "0010 0b00 0003c3f4  0010 aa00 000453b7"
)
GLASSWORKS_FULL: Final = (
    "009c 01 01  01 10 00 a0 000000 00 010000  01 10 00 a1 000000 00 0b0000  01 10 00 a2 000000 00 3f0300"
    "01 10 00 01 000000 00 000200  01 10 00 02 000000 00 061a43  01 10 00 03 000000 00 0c1a1e"
    "01 10 00 04 000000 00 140639  01 10 00 05 000000 00 1a0b19  01 10 00 06 000000 00 212028"
    "01 10 00 07 000000 00 272416  01 10 00 08 000000 00 282e43  01 10 00 09 000000 00 2e1d19"
    "01 10 00 0a 000000 00 31361b  01 10 00 0b 000000 00 363416"
)
GLASSWORKS_STARTS: Final = [0, 28867, 55830, 90357, 117700, 150790, 178072, 183367, 209050, 224427, 246772]
GLASSWORKS_END: Final = 283575


def test_an_audio_disc() -> None:
    found = ReadToc().reply(bytes.fromhex(GLASSWORKS))
    expected = [(number, start, False) for number, start in enumerate(GLASSWORKS_STARTS, 1)]
    assert (found.first, found.last, found.missing) == (1, 11, 0)
    assert starts(found) == [*expected, (LEAD_OUT, GLASSWORKS_END, False)]
    assert {(track.adr, track.control) for track in found.tracks} == {(1, AUDIO)}


def test_the_lead_in_of_an_audio_disc() -> None:
    found = ReadFullToc().reply(bytes.fromhex(GLASSWORKS_FULL))
    assert tracks(found) == [(1, number, start, False) for number, start in enumerate(GLASSWORKS_STARTS, 1)]
    assert session_rows(found) == [(1, 1, 11, GLASSWORKS_END, 0x00)]
    assert musicbrainz_of(found) == "_sVrFDJnz7X5AIOYy.XRbvAkQbU-"


# The same sources: audio before the first track, which begins after more than nine minutes.
DUSK: Final = (
    "0091 01 01  01 10 00 a0 000000 00 010000  01 10 00 a1 000000 00 0a0000  01 10 00 a2 000000 00 32192e"
    "01 10 00 01 000000 00 092e32  01 10 00 02 000000 00 0d3333  01 10 00 03 000000 00 11223f"
    "01 10 00 04 000000 00 143b0d  01 10 00 05 000000 00 183426  01 10 00 06 000000 00 1c2f19"
    "01 10 00 07 000000 00 210313  01 10 00 08 000000 00 251e28  01 10 00 09 000000 00 29270d"
    "01 10 00 0a 000000 00 2e1125"
)


def test_a_disc_with_audio_before_its_first_track() -> None:
    found = ReadFullToc().reply(bytes.fromhex(DUSK))
    assert musicbrainz_of(found) == "7M1ELM7spLD.scP31hAy15Di0g8-"


# The same sources: a CD Extra, 13 tracks of audio and then a session with a track of data.
KARMACODE: Final = (
    "00f4 01 02  01 10 00 a0 000000 00 010000  01 10 00 a1 000000 00 0d0000  01 10 00 a2 000000 00 2f1d08"
    "01 10 00 01 000000 00 000200  01 10 00 02 000000 00 041c3c  01 10 00 03 000000 00 073236"
    "01 10 00 04 000000 00 0b353f  01 10 00 05 000000 00 0f2039  01 10 00 06 000000 00 131925"
    "01 10 00 07 000000 00 143941  01 10 00 08 000000 00 182649  01 10 00 09 000000 00 1c3130"
    "01 10 00 0a 000000 00 1f331b  01 10 00 0b 000000 00 233300  01 10 00 0c 000000 00 27173a"
    "01 10 00 0d 000000 00 2b1727  01 50 00 b0 313b08 02 383348  01 50 00 c0 000000 00 5f0000"
    "02 14 00 a0 000000 00 0e2000  02 14 00 a1 000000 00 0e0000  02 14 00 a2 000000 00 383348"
    "02 14 00 0e 000000 00 320108"
)
KARMACODE_STARTS: Final = [
    *(0, 20010, 35154, 53388, 69807, 87262, 94190, 110773, 129573, 143202, 161175, 177133, 195114),
    224933,
]


def test_a_cd_extra() -> None:
    found = ReadFullToc().reply(bytes.fromhex(KARMACODE))
    audio = [(1, number, start, False) for number, start in enumerate(KARMACODE_STARTS[:-1], 1)]
    assert (found.first, found.last, found.missing) == (1, 2, 0)
    assert tracks(found) == [*audio, (2, 14, KARMACODE_STARTS[-1], True)]
    assert session_rows(found) == [(1, 1, 13, 213533, 0x00), (2, 14, 14, 255747, 0x20)]  # CD; CD-ROM XA
    assert musicbrainz_of(found) == "ZAYb2mGXra1AThXV8qSzGCyiu.4-"


# https://github.com/pipian/libcueify, tests/check_unportable.c: what three formats must answer for another CD Extra in
# the drive, in numbers; data_modes there says that all tracks but the last are audio, test_discid has its ID.
HEATHEN: Final = [
    *(0, 21445, 34557, 61903, 83000, 98620, 112124, 135655, 154145, 176766, 194590, 213436),
    244076,
]
HEATHEN_TIMES: Final[list[Time]] = [
    *((0, 2, 0), (4, 47, 70), (7, 42, 57), (13, 47, 28), (18, 28, 50), (21, 56, 70), (24, 56, 74), (30, 10, 55)),
    *((34, 17, 20), (39, 18, 66), (43, 16, 40), (47, 27, 61), (54, 16, 26)),
]
HEATHEN_END: Final = 258988
ZERO: Final[Time] = (0, 0, 0)


HEATHEN_TOC: Final = toc(
    1,
    13,
    [
        *((AUDIO, number, start) for number, start in enumerate(HEATHEN[:-1], 1)),
        (DATA, 13, HEATHEN[-1]),
        (DATA, LEAD_OUT, HEATHEN_END),
    ],
)


def test_the_tracks_of_another_cd_extra() -> None:
    found = ReadToc().reply(HEATHEN_TOC)
    assert (found.first, found.last, found.missing) == (1, 13, 0)
    assert starts(found) == [
        *((number, start, False) for number, start in enumerate(HEATHEN[:-1], 1)),
        (13, 244076, True),
        (LEAD_OUT, HEATHEN_END, True),
    ]


def test_the_last_session_of_another_cd_extra() -> None:
    found = ReadSessions().reply(toc(1, 2, [(DATA, 13, 244076)]))
    assert (found.first, found.last, found.missing) == (1, 2, 0)
    assert found.tracks == (TocTrack(track=13, start=244076, control=DATA, adr=1),)


def test_the_lead_ins_of_another_cd_extra() -> None:
    audio = [(1, number, 1, AUDIO, ZERO, 0, place) for number, place in enumerate(HEATHEN_TIMES[:-1], 1)]
    sample = full_toc(
        1,
        2,
        [
            (1, FIRST, 1, AUDIO, ZERO, 0, (1, 0, 0)),
            (1, LAST, 1, AUDIO, ZERO, 0, (12, 0, 0)),
            (1, END, 1, AUDIO, ZERO, 0, (51, 44, 26)),
            *audio,
            (2, FIRST, 1, DATA, ZERO, 0, (13, 0x20, 0)),
            (2, LAST, 1, DATA, ZERO, 0, (13, 0, 0)),
            (2, END, 1, DATA, ZERO, 0, (57, 35, 13)),
            (2, 13, 1, DATA, ZERO, 0, HEATHEN_TIMES[-1]),
        ],
    )
    found = ReadFullToc().reply(sample)
    assert [start for _, _, start, _ in tracks(found)] == HEATHEN  # as format 0 has them
    assert [is_data for _, _, _, is_data in tracks(found)] == [False] * 12 + [True]
    assert [(row[:3], row[4]) for row in session_rows(found)] == [((1, 1, 12), 0x00), ((2, 13, 13), 0x20)]
    assert point(found, 2, END).lba == HEATHEN_END
    assert musicbrainz_of(found) == "iIqthNFjPeboX2O1GKpqvcQIWDc-"
    rows = track_rows(ReadToc().reply(HEATHEN_TOC), found)
    assert [row["session"] for row in rows] == [1] * 12 + [2, None]
    assert rows[11]["blocks"] == point(found, 1, END).lba - HEATHEN[11], "not up to the next session"
    assert rows[12]["blocks"] == HEATHEN_END - HEATHEN[12]


# https://github.com/cdemu/cdemu/issues/46: a .toc file of readcd, which is the reply of the drive and two bytes more;
# cd-info says there which blocks the tracks begin at, the type of each, the lead-out, and where session 2 begins.
READCD: Final = (
    "00 86 01 02  01 10 00 a0 00 00 00 00 01 00 00  01 10 00 a1 00 00 00 00 03 00 00  01 10 00 a2 00 00 00 00 07 13 20"
    "01 10 00 01 00 00 00 00 00 02 00  01 10 00 02 00 00 00 00 03 14 14  01 10 00 03 00 00 00 00 05 13 48"
    "01 50 00 b0 09 31 20 02 0f 20 35  01 50 00 c0 00 00 00 00 5f 00 00  02 14 00 a0 00 00 00 00 04 20 00"
    "02 14 00 a1 00 00 00 00 04 00 00  02 14 00 a2 00 00 00 00 0f 20 35  02 14 00 04 00 00 00 00 09 33 20  04 52"
)


def test_what_readcd_read_from_a_cd_extra() -> None:
    found = ReadFullToc().reply(bytes.fromhex(READCD))
    assert (found.first, found.last, len(found.entries), found.missing) == (1, 2, 12, 0)
    assert tracks(found) == [(1, 1, 0, False), (1, 2, 14870, False), (1, 3, 23847, False), (2, 4, 44207, True)]
    assert point(found, 2, END).lba == 69803


# http://www.herongyang.com/CD-DVD/CD-TOC-cdrtools-Data-CD-Multi-Session.html and CD-TOC-cdrtools-Data-CD.html: the
# entries that readcd -fulltoc printed. It says of them where each session's lead-out is; the length that it prints has
# the four bytes of the header in it.
READCD_DATA: Final = (
    "007b 01 02  01 14 00 A0 00 00 00 00 01 20 00  01 14 00 A1 00 00 00 00 01 00 00  01 14 00 A2 00 00 00 00 1A 18 41"
    "01 14 00 01 00 00 00 00 00 02 00  01 54 00 B0 1C 36 41 02 4A 2B 00  01 54 00 C0 80 00 00 00 61 22 15"
    "02 14 00 A0 00 00 00 00 02 20 00  02 14 00 A1 00 00 00 00 02 00 00  02 14 00 A2 00 00 00 00 1E 04 3C"
    "02 14 00 02 00 00 00 00 1C 38 41  02 54 00 B0 1F 22 3C 01 4A 2B 00"
)
READCD_ONE: Final = (
    "002e 01 01  01 14 00 A0 00 00 00 00 01 00 00  01 14 00 A1 00 00 00 00 01 00 00  01 14 00 A2 00 00 00 00 07 16 22"
    "01 14 00 01 00 00 00 00 00 02 00"
)


@pytest.mark.parametrize(("sample", "lead_outs"), [(READCD_DATA, [118715, 135210]), (READCD_ONE, [33034])])
def test_data_discs_that_readcd_read(sample: str, lead_outs: list[int]) -> None:
    found = ReadFullToc().reply(bytes.fromhex(sample))
    assert found.missing == 0
    assert [lead_out for _, _, _, lead_out, _ in session_rows(found)] == lead_outs
    assert [(session, number, is_data) for session, number, _, is_data in tracks(found)] == [
        (session, session, True) for session in range(1, len(lead_outs) + 1)
    ]


# https://forum.redfox.bz/threads/question-about-lba-value-computing-in-clonecd-ccd-file.77220/ (the same is at
# https://club.myce.com/t/question-about-lba-value-computing-in-clonecd-ccd-file/405280): entries of the control files
# of several discs, picked for what CloneCD says of their times.
REDFOX: Final = (
    Entry(1, LEAD_IN, 5, 4, (160, 0, 48), 0, (97, 26, 66), plba=-11634),
    Entry(1, 0xC1, 5, 0, (4, 152, 96), 0, (0, 0, 0), plba=-150),
    Entry(2, NEXT, 5, 4, (255, 255, 255), 1, (79, 59, 73), plba=359848),
)
# https://github.com/gleporeNARA/pronom-research, sample_files/c/ccd/IMAGE.ccd and Gameshark-PSX-.ccd
IMAGE: Final = (
    Entry(1, FIRST, 1, 4, ZERO, 0, (1, 0, 0), plba=4350),
    Entry(1, LAST, 1, 4, ZERO, 0, (1, 0, 0), plba=4350),
    Entry(1, END, 1, 4, ZERO, 0, (54, 35, 60), plba=245535),
    Entry(1, 1, 1, 4, ZERO, 0, (0, 2, 0), plba=0),
)
GAMESHARK: Final = (
    Entry(1, FIRST, 1, 4, ZERO, 0, (1, 32, 0), plba=6750),
    Entry(1, LAST, 1, 4, ZERO, 0, (1, 0, 0), plba=4350),
    Entry(1, END, 1, 4, ZERO, 0, (1, 11, 15), plba=5190),
    Entry(1, 1, 1, 4, ZERO, 0, (0, 2, 0), plba=0),
)
# https://github.com/Speedvicio/MedGuiReborn/issues/21: the first 7 of 60 entries; data in track 1, then audio.
MIXED: Final = (
    Entry(1, FIRST, 1, 4, ZERO, 0, (1, 32, 0), plba=6750),
    Entry(1, LAST, 1, 0, ZERO, 0, (57, 0, 0), plba=256350),
    Entry(1, END, 1, 0, ZERO, 0, (59, 24, 23), plba=267173),
    Entry(1, 1, 1, 4, ZERO, 0, (0, 2, 0), plba=0),
    Entry(1, 2, 1, 0, ZERO, 0, (29, 17, 54), plba=131679),
    Entry(1, 3, 1, 0, ZERO, 0, (32, 34, 22), plba=146422),
    Entry(1, 4, 1, 0, ZERO, 0, (33, 38, 20), plba=151220),
)


@pytest.mark.parametrize(("rows", "announced"), [(REDFOX, 3), (IMAGE, 4), (GAMESHARK, 4), (MIXED, 60)])
def test_entries_of_clonecd_control_files(rows: tuple[Entry, ...], announced: int) -> None:
    found = ReadFullToc().reply(full_toc(1, rows[-1].session, [row[:-1] for row in rows], announced))
    got = [
        Entry(
            *(entry.session, entry.point, entry.adr, entry.control),
            *((entry.minute, entry.second, entry.frame), row.zero, (entry.p_minute, entry.p_second, entry.p_frame)),
            entry.lba,
        )
        for entry, row in zip(found.entries, rows, strict=True)
    ]
    assert got == list(rows)
    assert found.missing == 11 * (announced - len(rows))


# https://github.com/saramibreak/DiscImageCreator/issues/291: the last three tracks of an audio CD's table in bytes, as
# a drive answers when it is asked from track 11 on; the report says where they begin.
LAST_TRACKS: Final = "001a 01 0c  00 10 0B 00 00 01 FC 6C  00 10 0C 00 00 02 36 D5  00 10 AA 00 00 02 68 EF"


def test_the_last_tracks_of_an_audio_disc() -> None:
    found = ReadToc(track=11).reply(bytes.fromhex(LAST_TRACKS))
    assert starts(found) == [(11, 130156, False), (12, 145109, False), (LEAD_OUT, 157935, False)]


# https://github.com/gchudov/cuetools.net/issues/236: a disc with audio from time 00:01:00 on, which one drive gives as
# -75 in 24 bits. CUERipper prints the number that the drive gives, and the blocks of each track.
EARLY: Final = [16777141, 12340, 31637, 41702, 56167, 72602, 87700, 107955, 124217, 138950, 156430]


def test_a_first_track_that_begins_too_early_is_reported_as_the_drive_has_it() -> None:
    rows = [(AUDIO, number, start) for number, start in enumerate(EARLY, 1)]
    found = ReadToc().reply(toc(1, 11, [*rows, (AUDIO, LEAD_OUT, 156430 + 21905)]))
    assert [track.start for track in found.tracks] == [*EARLY, 178335]
