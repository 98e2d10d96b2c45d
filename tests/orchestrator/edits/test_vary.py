"""Variations: a share of the tokens is painted anew, with a prompt or without."""

from typing import Any

import numpy as np
import pytest
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import Vary

from services.orchestrator.edits.vary import chosen_cells
from tests.orchestrator.edits.conftest import Studio
from tests.picture_files import file_of, noise


@pytest.fixture
def image() -> bytes:
    return file_of(noise())


def known(request: Any) -> list[int]:
    return list(request.resume.known)


async def test_high_tokens_are_unknown_where_low_ones_are(studio: Studio, image: bytes) -> None:
    result = await studio.pixels(vary=Vary(image=image, strength=0.25))

    (base,), (superres,) = (studio.house.stages[name].asked for name in ("base", "superres"))
    low = np.array(known(base)).reshape(2, 2)
    assert low.sum() == 3
    assert (np.array(known(superres)).reshape(4, 4) == np.kron(low, np.ones((2, 2)))).all()
    assert result.shape == (32, 32, 3)


async def test_at_full_strength_nothing_of_the_picture_is_left(
    studio: Studio, image: bytes
) -> None:
    assert (await studio.pixels(vary=Vary(image=image, strength=1)) == studio.seed).all()


async def test_without_a_prompt_nothing_is_said_and_nothing_guides(
    studio: Studio, image: bytes
) -> None:
    await studio.images(vary=Vary(image=image), prompt=" ", base=Sampling(guidance_scale=3))

    assert not studio.house.stages["text_encoder"].asked
    for name in ("base", "superres"):
        (request,) = studio.house.stages[name].asked
        assert not request.HasField("prompt")
        assert request.sampling.guidance_scale == 0


async def test_a_negative_prompt_alone_guides_away_from_it(studio: Studio, image: bytes) -> None:
    await studio.images(vary=Vary(image=image), prompt="", negative_prompt="rain")

    (base,) = studio.house.stages["base"].asked
    assert (base.HasField("prompt"), base.HasField("negative_prompt")) == (False, True)
    assert base.sampling.guidance_scale == 2.5


async def test_each_seed_chooses_its_own_tokens_the_same_alone_as_in_company(
    studio: Studio, image: bytes
) -> None:
    together = await studio.images(vary=Vary(image=image), count=3)
    alone = [(await studio.images(vary=Vary(image=image), seed=studio.seed + i))[0] for i in (0, 2)]
    assert [together[0].png, together[2].png] == [each.png for each in alone]


def test_a_share_of_the_cells_inside_is_chosen_and_all_outside() -> None:
    inside = np.zeros((8, 8), bool)
    inside[2:6] = True
    chosen = chosen_cells(inside, 0.25, 3)

    assert chosen[~inside].all()
    assert chosen[inside].sum() == 8
    assert (chosen_cells(inside, 0.25, 4) != chosen).any()
    assert chosen_cells(inside, 1e-6, 3)[inside].sum() == 1
