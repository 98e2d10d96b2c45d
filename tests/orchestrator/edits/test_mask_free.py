"""Mask-free editing through the stages: base resamples, superres paints what is wanted of it."""

from typing import Any

import grpc
import numpy as np
import pytest
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import MaskFreeEdit

from services.orchestrator.edits.mask_free import iterations_of, kept_of
from tests.orchestrator.edits.conftest import Studio
from tests.picture_files import file_of, noise


@pytest.fixture
def image() -> bytes:
    return file_of(noise())


def low_ids(request: Any) -> np.ndarray:
    return np.frombuffer(request.low_tokens.ids, "<u2").astype(int)


async def test_its_defaults_are_the_papers_and_every_token_is_open(
    studio: Studio, image: bytes
) -> None:
    events = await studio.house.events(mask_free_edit=MaskFreeEdit(image=image))

    (base,) = studio.house.stages["base"].asked
    assert base.HasField("mask_free_edit")
    assert not base.mask_free_edit.HasField("fraction")  # base's own default, the paper's 8%
    assert not any(base.resume.known)
    expected = Sampling(steps=100, guidance_scale=4, guidance_scale_start=4, top_k=3, seed=7)
    assert base.sampling == expected
    provenance = events[-1].done.provenance
    assert (provenance.base.steps, provenance.superres.steps) == (100, 3)


async def test_every_number_can_be_set(studio: Studio, image: bytes) -> None:
    edit = MaskFreeEdit(image=image, iterations=12, fraction=0.5)
    await studio.images(
        mask_free_edit=edit, base=Sampling(guidance_scale=2, top_k=9, temperature=0.5)
    )

    (base,) = studio.house.stages["base"].asked
    assert base.mask_free_edit.fraction == 0.5
    assert base.sampling == Sampling(
        steps=12,
        guidance_scale=2,
        guidance_scale_start=2,
        top_k=9,
        temperature=0.5,
        seed=studio.seed,
    )


async def test_the_iterations_asked_for_come_besides_the_last_each_with_its_own_superres(
    studio: Studio, image: bytes
) -> None:
    edit = MaskFreeEdit(image=image, iterations=40, return_iterations=[10, 0, 25, 40])
    images = await studio.images(mask_free_edit=edit)

    assert [made.iteration for made in images] == [0, 10, 25, 40]
    assert {(made.index, made.seed) for made in images} == {(0, studio.seed)}
    before = np.frombuffer(studio.house.stages["base"].asked[0].resume.tokens.ids, "<u2")
    asked = {tuple(low_ids(each) - before) for each in studio.house.stages["superres"].asked}
    assert asked == {(step,) * 4 for step in (0, 10, 25, 40)}
    assert not any(each.HasField("resume") for each in studio.house.stages["superres"].asked)
    assert [decode.stage for decode in images[0].decodes] == ["base", "superres"]


async def test_no_step_is_reported_twice_when_the_decode_is_preempted(
    studio: Studio, image: bytes
) -> None:
    studio.house.stages["base"].preempts_at = [3]
    edit = MaskFreeEdit(image=image, iterations=6, return_iterations=[2, 5])
    events = await studio.house.events(mask_free_edit=edit, progress=True)

    received = [event.progress.step for event in events if event.progress.stage == "base"]
    assert received == [1, 2, 3, 4, 5, 6]


async def test_the_picture_comes_back_at_its_own_size_for_every_seed(studio: Studio) -> None:
    edit = MaskFreeEdit(image=file_of(noise(20, 50)), iterations=2, return_iterations=[1])
    images = await studio.images(mask_free_edit=edit, count=2)

    assert [(made.index, made.iteration) for made in images] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert {(made.width_px, made.height_px) for made in images} == {(50, 20)}


@pytest.mark.parametrize(
    ("edit", "iterations", "kept"),
    [
        (MaskFreeEdit(), 100, [100]),
        (MaskFreeEdit(strength=0.5), 100, [100]),
        (MaskFreeEdit(strength=1), 200, [200]),
        (MaskFreeEdit(strength=0.001), 1, [1]),
        (MaskFreeEdit(iterations=75, return_iterations=[50, 25, 50, 75]), 75, [25, 50, 75]),
    ],
)
def test_strength_says_how_many_iterations(
    edit: MaskFreeEdit, iterations: int, kept: list[int]
) -> None:
    assert iterations_of(edit) == iterations
    assert kept_of(edit) == kept


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("base.steps", {"base": Sampling(steps=5)}),
        ("base.min_steps", {"base": Sampling(min_steps=5)}),
        ("prompt", {"prompt": " "}),
    ],
)
async def test_what_would_contradict_it_is_refused_before_any_stage_is_called(
    studio: Studio, image: bytes, field: str, wrong: dict[str, Any]
) -> None:
    refusal = await studio.house.refusal(mask_free_edit=MaskFreeEdit(image=image), **wrong)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in refusal.violations] == [field]
    assert studio.house.calls() == 0
    assert await studio.house.works()
