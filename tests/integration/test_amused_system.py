"""A pipeline of aMUSEd's classes with drawn weights, from its import to pictures and edits."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from muse_client import Done, GeneratedImage, MuseClient, Progress

from services.runtime.checkpoints.golden import read_golden
from tests.integration.every_edit import check_every_edit
from tests.training.public_weights.amused import imported
from tools.local.runner import local_stack
from training.golden import write_goldens

SIDE_PX = 32  # 16 x 16 tokens of a VQGAN that halves the side
PLACES = ("text_encoder", "base", "tokenizer/low")


@pytest.fixture(scope="module")
def amused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the whole system."""
    return imported(tmp_path_factory.mktemp("amused"))


@pytest.fixture(scope="module")
def client(amused: Path, cache: Path) -> Iterator[MuseClient]:
    """A client of the system as `muse up` runs it."""
    with (
        (cache / "amused.log").open("w") as log,
        local_stack(amused, log) as running,
        MuseClient(running.address) as found,
    ):
        yield found


def test_pictures_form_from_previews_and_say_what_made_them(client: MuseClient) -> None:
    *steps, picture, done = client.events("a fox", seed=1, preview_every=6)
    (other,) = client.generate("a fox", seed=1, negative_prompt="a red fox")
    assert isinstance(picture, GeneratedImage)
    assert isinstance(done, Done)
    assert picture.image.size == (SIDE_PX, SIDE_PX)
    assert set(done.provenance.checkpoints) == set(PLACES)
    assert done.provenance.base.steps == 12
    assert not np.array_equal(other.image, picture.image)
    assert any(isinstance(each, Progress) and each.preview for each in steps)


def test_every_edit_passes_the_whole_stack(client: MuseClient) -> None:
    check_every_edit(client)


def test_its_golden_examples_can_be_written_anew(amused: Path) -> None:
    files = write_goldens(amused, "a fox")
    assert [file.parent for file in files] == [amused / place for place in PLACES]
    assert all(read_golden(amused / place) is not None for place in PLACES)
