"""Sets of pictures from a manifest, from tars and from any folder."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.evaluation.pictures.manifest import Entry, add_entry
from training.evaluation.pictures.reading import open_pictures


def test_any_folder_is_read_with_its_captions_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    Image.new("RGB", (20, 32)).save(tmp_path / "b" / "two.png")
    Image.new("RGB", (40, 24), (90, 90, 90)).save(tmp_path / "a.PNG")
    (tmp_path / "a.txt").write_text("a grey wall\n")
    (tmp_path / "notes.md").write_text("no picture")

    pictures = open_pictures(tmp_path, side_px=16)

    assert pictures.names == ("a.PNG", "b/two.png")
    assert [pictures.caption(index) for index in range(2)] == ["a grey wall", None]
    (batch,) = pictures.batches(8)
    assert batch.shape == (2, 16, 16, 3)
    assert (batch[0] == 90).all()
    assert len(open_pictures(tmp_path, side_px=16, limit=1)) == 1


def test_the_centred_square_is_taken(tmp_path: Path) -> None:
    wide = Image.new("RGB", (48, 16))
    wide.paste((255, 0, 0), (16, 0, 32, 16))
    wide.save(tmp_path / "wide.png")
    np.testing.assert_array_equal(
        open_pictures(tmp_path, side_px=16).read(0), np.full((16, 16, 3), (255, 0, 0), np.uint8)
    )


def test_tars_and_their_captions_are_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "some.tar", "w") as archive:
        for index in range(3):
            content = io.BytesIO()
            Image.new("RGB", (16, 16), (index, 0, 0)).save(content, "PNG")
            for name, data in ((f"{index}.png", content.getvalue()), (f"{index}.txt", b"words")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    pictures = open_pictures(tmp_path, side_px=16)
    assert [batch[:, 0, 0, 0].tolist() for batch in pictures.batches(2)] == [[0, 1], [2]]
    assert pictures.caption(1) == "words"


def test_a_generated_set_has_its_prompts_and_tags(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "of-no-prompt.png")
    add_entry(tmp_path, Entry(file="0.png", prompt="a ball", prompt_index=0, seed=1, tags={"k": 2}))
    pictures = open_pictures(tmp_path, side_px=16)
    assert (pictures.names, pictures.caption(0)) == (("0.png",), "a ball")
    assert pictures.tags == ({"k": 2},)


def test_what_is_no_set_of_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected pictures .* found none"):
        open_pictures(tmp_path, side_px=16)
    with pytest.raises(ValueError, match=r"expected a folder of pictures, got .*gone"):
        open_pictures(tmp_path / "gone", side_px=16)
    with pytest.raises(ValueError, match="at least 1, got 16 and 0"):
        open_pictures(tmp_path, side_px=16, limit=0)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png: "):
        open_pictures(tmp_path, side_px=16).read(0)


def test_an_example_without_a_picture_or_with_a_prompt_that_is_no_text_is_named(
    tmp_path: Path,
) -> None:
    with tarfile.open(tmp_path / "some.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("7.txt"), io.BytesIO())
    with pytest.raises(ValueError, match=r"some\.tar/7: no picture: expected one of \.jpg"):
        open_pictures(tmp_path, side_px=16).read(0)

    folder = tmp_path / "files"
    folder.mkdir()
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    (folder / "a.txt").write_bytes("Füchse".encode("latin-1"))
    with pytest.raises(ValueError, match=r"files/a\.txt: expected a prompt in UTF-8, got .*0xfc"):
        open_pictures(folder, side_px=16).caption(0)
