"""Programs of others on our images, and ours on theirs: bmaptool's block maps and libsparse's sparse images."""

from __future__ import annotations

from pathlib import Path

import pytest

import scsiusb
from scsiusb.errors import ImageError
from scsiusb.imaging import dump, restore
from tests.imaging.sticks import contents, plug
from tests.programs import needs, run

BLOCK = 4096  # of a block map and of a sparse image
IMAGE = bytes(contents())
HOLE = range(len(IMAGE) // 4, len(IMAGE) // 2)  # zeros
OLD = b"\xaa"


def with_hole(image: bytes, hole: bytes) -> bytes:
    """Return the image with other content in its hole."""
    return image[: HOLE.start] + hole * len(HOLE) + image[HOLE.stop :]


def restored(path: Path, size: int = len(IMAGE)) -> bytes:
    """Restore the image to a stick that was full of OLD; return what is on it."""
    data = bytearray(OLD * size)
    with scsiusb.open_on(plug(data)) as disk:
        (result,) = restore(path, disk)
    assert result.error is None
    return bytes(data)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image that another program may make: its zeros are holes of the file."""
    path = tmp_path / "theirs.img"
    with path.open("wb") as file:
        file.write(IMAGE[: HOLE.start])
        file.seek(HOLE.stop)
        file.write(IMAGE[HOLE.stop :])
    return path


@needs("bmaptool")
@pytest.mark.parametrize("name", ["a.img", "a.img.gz", "a.img.bz2", "a.img.xz", "a.img.zst"])
def test_bmaptool_copies_our_image_by_our_block_map(name: str, tmp_path: Path) -> None:
    with scsiusb.open_on(plug(bytearray(IMAGE))) as disk:
        dump(disk, tmp_path / name, bmap=True)
    copy = tmp_path / "copy"
    copy.write_bytes(OLD * len(IMAGE))
    run("bmaptool", "copy", "--bmap", tmp_path / f"{name}.bmap", tmp_path / name, copy)
    assert copy.read_bytes() == with_hole(IMAGE, b"\0"), "it makes a new file, in which the hole has zeros"


@needs("bmaptool")
def test_bmaptool_refuses_what_is_not_our_image(tmp_path: Path) -> None:
    with scsiusb.open_on(plug(bytearray(IMAGE))) as disk:
        dump(disk, tmp_path / "a.img", bmap=True)
    changed = bytearray(IMAGE)
    changed[-1] ^= 1
    (tmp_path / "a.img").write_bytes(changed)
    with pytest.raises(AssertionError, match="checksum"):
        run("bmaptool", "copy", "--bmap", tmp_path / "a.img.bmap", tmp_path / "a.img", tmp_path / "copy")


@needs("bmaptool")
def test_we_restore_by_bmaptools_block_map(image: Path) -> None:
    run("bmaptool", "create", "-o", f"{image}.bmap", image)
    assert restored(image) == with_hole(IMAGE, OLD), "what is not mapped stays"


@needs("bmaptool")
def test_we_refuse_what_is_not_the_image_of_bmaptools_block_map(image: Path) -> None:
    run("bmaptool", "create", "-o", f"{image}.bmap", image)
    with image.open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(ImageError, match="block map"):
        restored(image)


@needs("img2simg")
@pytest.mark.parametrize("block", [1024, BLOCK, 16384])
def test_we_restore_what_img2simg_makes(block: int, image: Path, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    run("img2simg", image, sparse, str(block))
    assert sparse.stat().st_size < len(IMAGE)
    assert restored(sparse) == IMAGE, "it fills the hole with zeros"


@needs("simg2img")
def test_simg2img_unfolds_the_same_image_as_we_do(image: Path, tmp_path: Path) -> None:
    run("img2simg", image, tmp_path / "sparse", str(BLOCK))
    run("simg2img", tmp_path / "sparse", tmp_path / "theirs")
    assert restored(tmp_path / "sparse") == (tmp_path / "theirs").read_bytes()
