"""Filters leave examples out by size, aspect and caption, count them, and do not call them odd."""

from functools import partial
from pathlib import Path

import pytest

from tests.training.data.captioned.conftest import OpenReader
from tests.training.data.captioned.drawn import Example, files_of, plain, tar_of, write
from training.data.captioned.batches import CaptionedBatches
from training.data.captioned.errors import DataError, FilteredExample
from training.data.captioned.filters import Filters

EXAMPLES = [
    Example("plain", plain(1, (40, 30)), "a red square"),
    Example("small", plain(2, (40, 20)), "a red square"),
    Example("wide", plain(3, (90, 30)), "a red square"),
    Example("short", plain(4, (40, 30)), "red"),
    Example("long", plain(5, (40, 30)), "a red square, " * 9),
    Example("blocked", plain(6, (40, 30)), "A Watermark on red"),
]
limited = partial(
    Filters, min_side_px=21, max_aspect=2.5, min_caption_chars=4, max_caption_chars=99
)
LIMITS = limited.keywords


@pytest.fixture
def filters(tmp_path: Path) -> Filters:
    """One of each kind."""
    blocklist = tmp_path / "blocklist.txt"
    blocklist.write_text("watermark\n\n getty images \n")
    return limited(blocklist=blocklist)


def test_each_filter_leaves_its_example_out_and_counts_it(
    tmp_path: Path, reader: OpenReader, filters: Filters
) -> None:
    write(f"{tmp_path}/data/a.tar", tar_of(files_of(EXAMPLES)))
    opened = reader(tmp_path / "data", filters=filters, max_skipped_share=0.0)

    found = [opened.captioned(index) for index in range(len(EXAMPLES))]

    assert [row for row, example in enumerate(found) if example is not None] == [0]
    assert opened.log.filtered == {**dict.fromkeys(LIMITS, 1), "blocklist": 1}
    assert (opened.log.read, opened.log.skipped) == (6, 0)
    assert not (tmp_path / "out" / "skipped.jsonl").exists()


def test_a_batch_takes_other_examples_for_those_left_out(
    tmp_path: Path, reader: OpenReader, filters: Filters
) -> None:
    write(f"{tmp_path}/data/a.tar", tar_of(files_of(EXAMPLES)))
    batches = CaptionedBatches(reader(tmp_path / "data", filters=filters), batch_size=6, seed=0)
    images, captions = batches.captioned(0)
    assert captions == ["a red square"] * 6
    assert (images[..., 0] == 1).all()


@pytest.mark.parametrize(
    ("caption", "left_out"),
    [
        ("a WATERMARK", True),
        ("watermarks", False),
        ("by Getty Images, 2020", True),
        ("getty photographs", False),
        ("no-watermark!", True),
    ],
)
def test_a_blocklist_means_whole_words_of_either_case(
    caption: str, left_out: bool, filters: Filters
) -> None:
    if left_out:
        with pytest.raises(FilteredExample, match="blocklist"):
            filters.check_caption(caption)
    else:
        filters.check_caption(caption)


def test_a_filter_holds_at_its_own_number() -> None:
    filters = limited()
    filters.check_size(21, 52)
    filters.check_caption("4" * 4)
    filters.check_caption("9" * 99)
    with pytest.raises(FilteredExample, match="max_aspect"):
        filters.check_size(53, 21)


@pytest.mark.parametrize("name", LIMITS)
def test_a_filter_below_one_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: expected 1 or more, got 0"):
        Filters(**{name: 0})


def test_lengths_that_no_caption_has_are_refused() -> None:
    with pytest.raises(DataError, match="expected at most max_caption_chars, 3, got 9"):
        Filters(min_caption_chars=9, max_caption_chars=3)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), (b"\xff\xfe\xfd", "cannot be read"), (b"\n \n", "a phrase a line")],
)
def test_a_blocklist_that_cannot_be_read_is_named(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "blocklist.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=said):
        Filters(blocklist=file).description()


def test_a_mark_of_utf_8_before_the_first_phrase_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "blocklist.txt"
    file.write_bytes(b"\xef\xbb\xbfwatermark\n")
    assert Filters(blocklist=file).phrases == ("watermark",)


def test_a_description_names_what_is_set(filters: Filters) -> None:
    assert Filters().description() == {}
    assert filters.description() == {**LIMITS, "blocklist": ["watermark", "getty images"]}
