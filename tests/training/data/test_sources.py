"""What a run learns from: scenes of as many objects as it began with."""

from pathlib import Path

import pytest

from tests.training.data.captioned.drawn import leveled, write_tar
from training.data.captioned.errors import DataError
from training.data.scene_batches import SceneBatches
from training.data.scenes import BOARD_8
from training.data.sources import NO_DATA_FLAGS, DataFlags, open_source
from training.data.sprites import SceneDataError
from training.resuming import ResumeError


def opened(data: Path, out: Path, flags: DataFlags = NO_DATA_FLAGS) -> SceneBatches:
    """The scenes of a system that shows four objects."""
    source = open_source(
        str(data), out=out, flags=flags, side_px=32, batch_size=1, seed=0, board=BOARD_8, objects=4
    )
    assert isinstance(source, SceneBatches)
    return source


def test_a_flag_takes_the_place_of_the_systems_number_of_objects(
    artwork: Path, tmp_path: Path
) -> None:
    names = [each.name for each in opened(artwork, tmp_path / "a").sprites.vocabulary.objects]
    few = opened(artwork, tmp_path / "b", DataFlags(objects=2)).sprites.vocabulary.objects
    assert len(names) == 4
    assert [each.name for each in few] == names[:2]


def test_a_run_goes_on_with_the_number_of_objects_that_it_began_with(
    artwork: Path, tmp_path: Path
) -> None:
    opened(artwork, tmp_path, DataFlags(objects=2))
    opened(artwork, tmp_path, DataFlags(objects=2))
    with pytest.raises(ResumeError, match="whose objects is 2, this one's is 4"):
        opened(artwork, tmp_path)


def test_a_number_of_objects_is_refused_where_there_are_not_so_many(
    artwork: Path, tmp_path: Path
) -> None:
    with pytest.raises(SceneDataError, match=r"objects: expected 1 to \d+, got 0"):
        opened(artwork, tmp_path, DataFlags(objects=0))


def test_pictures_from_files_have_no_number_of_objects(tmp_path: Path) -> None:
    write_tar(f"{tmp_path}/data", leveled(2))
    with pytest.raises(DataError, match="objects: expected none for pictures from files, got 2"):
        opened(tmp_path / "data", tmp_path / "out", DataFlags(objects=2))
