"""Tests for WebDataset tars: every example once an epoch, the same batch for the same step."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.scenes import BOARD_8
from training.data.sources import open_source
from training.data.webdataset import WebDatasetBatches, WebDatasetError, WebDatasetSource


def _write(tar: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(tar, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _picture(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_epoch_has_every_example_once_and_a_step_is_always_the_same(tmp_path: Path) -> None:
    for shard in range(2):
        files = {}
        for row in range(3):
            files[f"{row}.png"] = _picture(10 * (3 * shard + row))
            files[f"{row}.txt"] = f"level {10 * (3 * shard + row)}\n".encode()
        _write(tmp_path / f"{shard}.tar", files)
    source = WebDatasetSource(tmp_path, side_px=8)
    ordered = WebDatasetBatches(source, batch_size=2, seed=1)
    batches = [ordered.captioned(step) for step in range(3)]
    captions = [caption for _, texts in batches for caption in texts]
    assert sorted(captions) == sorted(f"level {10 * row}" for row in range(6))
    assert all(
        caption == f"level {image[0, 0, 0]}"
        for images, texts in batches
        for image, caption in zip(images, texts, strict=True)
    )
    source = WebDatasetSource(tmp_path, side_px=8)
    again, texts = WebDatasetBatches(source, batch_size=2, seed=1).captioned(2)
    np.testing.assert_array_equal(again, batches[2][0])
    assert texts == batches[2][1]


def test_a_folder_without_tars_and_a_picture_without_caption_are_named(tmp_path: Path) -> None:
    with pytest.raises(WebDatasetError, match="found none"):
        WebDatasetSource(tmp_path, side_px=8)
    _write(tmp_path / "a.tar", {"lonely.png": _picture(1)})
    with pytest.raises(WebDatasetError, match="lonely has no caption"):
        WebDatasetSource(tmp_path, side_px=8)


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    _write(tmp_path / "a.tar", {"odd.png": b"text", "odd.json": b'{"caption": "odd"}'})
    with pytest.raises(WebDatasetError, match="odd: the picture cannot be read"):
        WebDatasetSource(tmp_path, side_px=8)[0]


def test_a_folder_of_tars_is_opened_as_a_source(tmp_path: Path) -> None:
    _write(tmp_path / "a.tar", {"dot.png": _picture(7), "dot.txt": b"a dot"})
    source = open_source(tmp_path, side_px=16, batch_size=2, seed=0, board=BOARD_8)
    images, captions = source.captioned(0)
    assert images.shape == (2, 16, 16, 3)
    assert captions == ["a dot", "a dot"]
    np.testing.assert_array_equal(source.images(0), images)
    assert source.label_classes == {}
    assert next(source.captions(0)).text == "a dot"
