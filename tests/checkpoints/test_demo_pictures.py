"""The checkpoint in the repository makes pictures of what it is asked for, through five servers."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from muse_client import MuseClient

from tools.local import local_stack

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo"
COLOURS = {"white": (255, 255, 255), "green": (46, 125, 50), "purple": (106, 27, 154)}
FARTHEST = 24  # of 255, on average over a corner's pixels


@pytest.fixture(scope="module")
def muse() -> Iterator[MuseClient]:
    """Servers as `make demo` starts them, of what it compiled: without what hurries other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XLA_FLAGS", raising=False)
        with (
            local_stack(DEMO, io.StringIO()) as stack,
            MuseClient(stack.address, timeout_s=120) as client,
        ):
            yield client


def test_every_stage_serves_the_demo(muse: MuseClient) -> None:
    reports = muse.status().stages

    assert [report.unavailable_reason for report in reports] == [""] * 4
    assert {report.status.preset for report in reports} == {"demo"}


@pytest.mark.parametrize("colour", COLOURS)
def test_the_background_is_the_one_asked_for(muse: MuseClient, colour: str) -> None:
    for prompt in (f"a fox on a {colour} background", f"a 3D picture of a pizza on {colour}"):
        (picture,) = muse.generate(prompt, seed=3)
        pixels = np.asarray(picture.image.convert("RGB")).astype(int)
        corners = np.concatenate([pixels[:8, :8], pixels[:8, -8:], pixels[-8:, :8]])

        assert np.abs(corners - COLOURS[colour]).mean() < FARTHEST


def test_two_prompts_are_two_pictures_and_neither_is_plain(muse: MuseClient) -> None:
    prompts = ("a banana on a blue background", "a castle on a blue background")
    banana, castle = (
        np.asarray(muse.generate(prompt, seed=3)[0].image).astype(int) for prompt in prompts
    )

    assert min(picture.std(axis=(0, 1)).max() for picture in (banana, castle)) > 20
    assert np.abs(banana - castle).mean() > 10


def test_a_seed_is_the_same_file_alone_again_and_in_a_batch_of_four(muse: MuseClient) -> None:
    prompt = "an owl to the left of a mushroom on a yellow background"
    batch = muse.generate(prompt, seed=5, count=4)
    (alone,), (again,) = (muse.generate(prompt, seed=6) for _ in range(2))

    assert batch[1].png == alone.png == again.png
    assert len({picture.png for picture in batch}) == 4
