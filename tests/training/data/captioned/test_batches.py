"""Batches from files: every example once an epoch, the same batch for the same step."""

import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.captioned.conftest import OpenReader
from tests.training.data.captioned.drawn import KINDS, leveled, write_tar
from training.data.captioned.batches import CaptionedBatches
from training.data.captioned.filters import Filters
from training.data.order import ExampleOrder
from training.data.parallel import compose
from training.data.scenes import BOARD_8
from training.data.sources import DataFlags, ImageSource, open_source
from training.resuming import ResumeError


def opened(data: Path, out: Path, *, seed: int = 0, flags: DataFlags | None = None) -> ImageSource:
    """Opens data as a command does."""
    return open_source(
        str(data),
        out=out,
        flags=flags or DataFlags(),
        side_px=8,
        batch_size=2,
        seed=seed,
        board=BOARD_8,
    )


def test_an_epoch_has_every_example_once_and_a_step_is_always_the_same(
    tmp_path: Path, reader: OpenReader
) -> None:
    for shard in range(2):
        write_tar(f"{tmp_path}/data/{shard}", leveled(3, first=3 * shard))
        (tmp_path / "data" / f"{shard}.tar").write_bytes(
            (tmp_path / "data" / str(shard) / "a.tar").read_bytes()
        )
    ordered = CaptionedBatches(reader(tmp_path / "data"), batch_size=2, seed=1)
    batches = [ordered.captioned(step) for step in range(6)]
    captions = [caption for _, texts in batches for caption in texts]
    assert sorted(captions[:6]) == sorted(captions[6:]) == [f"level {row}" for row in range(6)]
    assert captions[:6] != captions[6:]
    assert all(
        caption == f"level {image[0, 0, 0]}"
        for images, texts in batches
        for image, caption in zip(images, texts, strict=True)
    )
    again = CaptionedBatches(reader(tmp_path / "data"), batch_size=2, seed=1)
    images, texts = again.captioned(4)
    np.testing.assert_array_equal(images, batches[4][0])
    assert texts == batches[4][1]


def test_processes_share_the_batch_that_one_process_reads(
    tmp_path: Path, reader: OpenReader
) -> None:
    write_tar(f"{tmp_path}/data", leveled(9))
    whole = CaptionedBatches(reader(tmp_path / "data"), batch_size=6, seed=2)
    parts = [
        CaptionedBatches(
            reader(tmp_path / "data"),
            batch_size=6,
            seed=2,
            rows=slice(2 * process, 2 * process + 2),
        )
        for process in range(3)
    ]
    for step in range(4):
        images = np.concatenate([part.images(step) for part in parts])
        np.testing.assert_array_equal(images, whole.images(step))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_can_be_composed_in_other_processes(
    kind: str, tmp_path: Path, reader: OpenReader
) -> None:
    KINDS[kind](f"{tmp_path}/data", leveled(4))
    batches = CaptionedBatches(reader(tmp_path / "data"), batch_size=2, seed=0)
    wanted = batches.captioned(1)
    sent = pickle.loads(pickle.dumps(batches))
    np.testing.assert_array_equal(sent.captioned(1)[0], wanted[0])
    if kind == "tar":
        ((step, (images, captions)),) = compose(batches.captioned, [1], workers=1)
        assert (step, captions) == (1, wanted[1])
        np.testing.assert_array_equal(images, wanted[0])


def test_a_folder_of_tars_is_opened_as_a_source(tmp_path: Path) -> None:
    write_tar(f"{tmp_path}/data", leveled(1))
    source = opened(tmp_path / "data", tmp_path / "out")
    images, captions = source.captioned(0)
    assert images.shape == (2, 8, 8, 3)
    assert captions == ["level 0", "level 0"]
    np.testing.assert_array_equal(source.images(0), images)
    assert source.label_classes == source.subjects == {}


def test_captions_follow_their_seed_and_come_once_an_epoch(tmp_path: Path) -> None:
    write_tar(f"{tmp_path}/data", leveled(4))
    source = opened(tmp_path / "data", tmp_path / "out")
    first, again, other = (
        [caption.text for caption in islice(source.captions(seed), 8)] for seed in (5, 5, 6)
    )
    assert first == again != other
    assert sorted(first[:4]) == sorted(first[4:]) == [f"level {row}" for row in range(4)]


def test_a_run_goes_on_with_the_data_and_the_filters_it_began_with(tmp_path: Path) -> None:
    write_tar(f"{tmp_path}/data", leveled(2))
    opened(tmp_path / "data", tmp_path / "out")
    opened(tmp_path / "data", tmp_path / "out")
    flags = DataFlags(filters=Filters(max_aspect=2.0))
    with pytest.raises(ResumeError, match=r"whose filters is \{\}, this one's is \{'max_aspect'"):
        opened(tmp_path / "data", tmp_path / "out", flags=flags)
    write_tar(f"{tmp_path}/data", leveled(3))
    with pytest.raises(ResumeError, match=r"whose contents is '\w+', this one's is '\w+'"):
        opened(tmp_path / "data", tmp_path / "out")


def test_later_attempts_of_one_place_are_other_examples_and_follow_the_seed() -> None:
    order = ExampleOrder(1000, seed=4)
    drawn = [order.at(17, attempt) for attempt in range(20)]
    assert len(set(drawn)) > 15
    assert drawn == [ExampleOrder(1000, seed=4).at(17, attempt) for attempt in range(20)]
    # Two places whose first choices cannot be used hardly take the same example.
    assert len({order.at(place, 1) for place in range(100)}) > 80
    assert order.first_usable(17, lambda index: index if index != drawn[0] else None) == drawn[1]
