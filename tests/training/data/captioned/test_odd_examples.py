"""An odd example is skipped, counted and named; its place takes another, always the same one."""

import json
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.captioned.conftest import OpenReader
from tests.training.data.captioned.drawn import files_of, leveled, noise, plain, png, tar_of, write
from training.data.captioned import log as logs
from training.data.captioned.batches import CaptionedBatches
from training.data.captioned.errors import DataError
from training.data.captioned.log import ExampleLog, SkippedNames


def bomb() -> bytes:
    """A PNG whose head claims 30,000 x 30,000 pixels."""
    whole, head = plain(1), b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]


TEXT = b"a caption"
# Name: files of one key, and the reason for which the example is skipped.
ODD: dict[str, tuple[dict[str, bytes], str]] = {
    "no caption": ({".png": plain(1)}, "no caption: expected a .txt or .json"),
    "a null caption": (
        {".png": plain(1), ".json": b'{"caption": null}'},
        "expected a text in the JSON field 'caption', got None",
    ),
    "a number for a caption": (
        {".png": plain(1), ".json": b'{"caption": 7}'},
        "expected a text in the JSON field 'caption', got 7",
    ),
    "another field": (
        {".png": plain(1), ".json": b'{"text": "a fox", "width": 3}'},
        "expected a caption in the JSON field 'caption', got text, width",
    ),
    "a list": (
        {".png": plain(1), ".json": b'["caption"]'},
        "expected a caption in the JSON field 'caption', got list",
    ),
    "no JSON": ({".png": plain(1), ".json": b"{"}, "the JSON of the caption cannot be read"),
    "deep JSON": ({".png": plain(1), ".json": b"[" * 100_000}, "the JSON of the caption cannot be"),
    "half of an emoji": (
        {".png": plain(1), ".json": b'{"caption": "a \\ud83e"}'},
        "the caption has half of a surrogate pair",
    ),
    "an empty caption": ({".png": plain(1), ".txt": b" \n"}, "the caption is empty"),
    "Latin-1": ({".png": plain(1), ".txt": "Füchse".encode("latin-1")}, "no UTF-8"),
    "no picture": ({".txt": TEXT}, "no picture: expected one of .jpg"),
    "a broken PNG": (
        {".png": png(Image.fromarray(noise(16)))[:400], ".txt": TEXT},
        "a broken one",
    ),
    "an empty file": ({".png": b"", ".txt": TEXT}, "got nothing"),
    "text for a picture": ({".png": TEXT, ".txt": TEXT}, "expected a PNG, JPEG or WebP file"),
    "a bomb": ({".png": bomb(), ".txt": TEXT}, "at most 67108864 pixels"),
    "3 pixels": ({".png": plain(1, (3, 3)), ".txt": TEXT}, "at least 16 pixels, got 3 x 3"),
}


def write_odd(folder: Path, names: list[str], good: int) -> None:
    """Writes one tar of odd examples, and of good ones beside them."""
    files = {
        f"{name.replace(' ', '-')}{ending}": content
        for name in names
        for ending, content in ODD[name][0].items()
    }
    write(f"{folder}/a.tar", tar_of(files | files_of(leveled(good))))


@pytest.mark.parametrize("name", ODD)
def test_an_odd_example_is_named_by_tar_and_key_with_the_reason(
    name: str, tmp_path: Path, reader: OpenReader
) -> None:
    write_odd(tmp_path / "data", [name], good=0)
    opened = reader(tmp_path / "data")

    assert opened.captioned(0) is None

    (line,) = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert (found["file"], found["key"]) == ("a.tar", name.replace(" ", "-"))
    assert ODD[name][1] in found["reason"]
    assert (opened.log.read, opened.log.skipped) == (1, 1)


def test_an_epoch_goes_on_past_odd_examples_and_a_step_stays_a_function_of_the_seed(
    tmp_path: Path, reader: OpenReader
) -> None:
    write_odd(tmp_path / "data", list(ODD), good=40 - len(ODD))
    batches = CaptionedBatches(reader(tmp_path / "data"), batch_size=5, seed=3)
    steps = [batches.captioned(step)[1] for step in range(8)]  # an epoch of 40

    assert {caption for texts in steps for caption in texts} >= {
        f"level {level}" for level in range(40 - len(ODD))
    }
    again = CaptionedBatches(reader(tmp_path / "data"), batch_size=5, seed=3)
    assert [again.captioned(step)[1] for step in (7, 2)] == [steps[7], steps[2]]
    lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines}) == len(ODD)


def test_a_tokenizer_needs_no_captions(tmp_path: Path, reader: OpenReader) -> None:
    write_odd(tmp_path / "data", ["no caption", "Latin-1"], good=0)
    batches = CaptionedBatches(reader(tmp_path / "data"), batch_size=2, seed=0)
    assert batches.images(0).shape == (2, 8, 8, 3)


def test_a_run_ends_past_its_share_of_skipped_examples_and_not_before(tmp_path: Path) -> None:
    log = ExampleLog(tmp_path / "skipped.jsonl", 0.05)
    for row in range(998):
        if row % 20:
            log.count_usable()
        else:
            log.skip("a.tar", str(row), "no caption")
    log.skip("a.tar", "early", "no caption")
    assert log.read == 999
    with pytest.raises(
        DataError,
        match=r"52 of 1000 examples could not be used, more than --max-skipped-share 0\.05, the "
        r"last one late of a\.tar: no caption; .*skipped\.jsonl names them",
    ):
        log.skip("a.tar", "late", "no caption")


def test_odd_examples_among_the_first_end_a_run_as_soon_as_it_is_judged(tmp_path: Path) -> None:
    log = ExampleLog(tmp_path / "skipped.jsonl", 0.05)
    for row in range(51):
        log.skip("a.tar", str(row), "no caption")
    for _ in range(948):
        log.count_usable()
    with pytest.raises(DataError, match=r"51 of 1000 examples .*, the last one 50 of a\.tar"):
        log.count_usable()


def test_data_of_odd_examples_alone_end_the_run(tmp_path: Path, reader: OpenReader) -> None:
    write_odd(tmp_path / "data", ["no caption", "Latin-1"], good=0)
    with pytest.raises(DataError, match="more than --max-skipped-share"):
        CaptionedBatches(reader(tmp_path / "data"), batch_size=2, seed=0).captioned(0)
    tolerant = reader(tmp_path / "data", max_skipped_share=1.0)
    with pytest.raises(ValueError, match=r"none of 1000 examples .* of 2: loosen the filters"):
        CaptionedBatches(tolerant, batch_size=2, seed=0).captioned(0)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float, tmp_path: Path, reader: OpenReader) -> None:
    write_odd(tmp_path / "data", [], good=1)
    with pytest.raises(DataError, match="max_skipped_share: expected 0 to 1, got"):
        reader(tmp_path / "data", max_skipped_share=share)


def test_counts_are_said_when_they_double_and_a_later_session_names_nothing_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "skipped.jsonl"
    file.write_text('{"file": "a.tar", "key": "0", "reason": "cut in writ')
    with caplog.at_level(logging.WARNING, logs.__name__):
        for _ in range(2):
            log = ExampleLog(file, 1.0)
            for key in range(3):
                log.skip("a.tar", str(key), "no caption")
            log.count_filtered("max_aspect")

    rows = [line for line in file.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(row)["key"] for row in rows] == ["0", "1", "2"]
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(" (")[0] for line in said[:3]] == [
        "of 1 examples read, 1 could not be used",
        "of 2 examples read, 2 could not be used",
        "of 4 examples read, 3 could not be used",
    ]
    assert said[2].endswith("filters left out max_aspect 1")


def test_processes_that_share_a_file_name_an_example_once_and_count_all(tmp_path: Path) -> None:
    file = tmp_path / "skipped.jsonl"
    counted = SkippedNames(file)
    assert counted.count() == 0
    logs_of_processes = [ExampleLog(file, 1.0) for _ in range(2)]
    for log in logs_of_processes:
        log.skip("a.tar", "0", "no caption")
        assert counted.count() == 1
    logs_of_processes[1].skip("b.tar", "0", "no caption")
    with file.open("a") as lines:
        lines.write('{"file": "c.tar", "key": "0", "rea')
        lines.flush()
        assert counted.count() == 2
        lines.write('son": "no caption"}\n')
    assert counted.read() == {("a.tar", "0"), ("b.tar", "0"), ("c.tar", "0")}
    assert len(file.read_text().splitlines()) == 3


def test_training_reads_a_phone_s_photograph_upright_and_composites_over_white(
    tmp_path: Path, reader: OpenReader
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    halves = Image.new("RGB", (32, 32), (0, 0, 200))
    halves.paste((200, 0, 0), (0, 0, 16, 32))
    clear = Image.new("RGBA", (16, 16), (9, 9, 9, 0))
    deep = Image.fromarray(np.full((16, 16), 100 << 8, np.uint16))
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    files = {
        "a.jpg": png(halves, "JPEG", quality=95, exif=exif.tobytes()),
        "b.png": png(clear),
        "c.png": png(deep),
        "d.jpg": png(ink, "JPEG", quality=95),
    }
    write(f"{tmp_path}/data/a.tar", tar_of(files))
    opened = reader(tmp_path / "data")
    turned, over_white, grey, red = (opened.image(row) for row in range(4))
    assert turned is not None
    assert turned[1, 4].tolist() == pytest.approx((200, 0, 0), abs=9)
    assert turned[6, 4].tolist() == pytest.approx((0, 0, 200), abs=9)
    assert (over_white == 255).all()
    assert (grey == 100).all()
    assert red is not None
    assert red[4, 4].tolist() == pytest.approx((255, 0, 0), abs=9)


def test_the_square_in_the_middle_is_scaled(tmp_path: Path, reader: OpenReader) -> None:
    pixels = noise(16)
    wide = np.concatenate([noise(16, 1), pixels, noise(16, 2)], axis=1)
    write(f"{tmp_path}/data/a.tar", tar_of({"a.png": png(Image.fromarray(wide))}))

    found = reader(tmp_path / "data").image(0)

    wanted = Image.fromarray(pixels).resize((8, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(found, np.asarray(wanted))
