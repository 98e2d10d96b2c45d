"""A system without a superres: the tokenizer decodes the base's tokens to the picture."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from muse.common.v1.decoding_pb2 import Adapter, Sampling
from muse.orchestrator.v1.orchestrator_pb2 import (
    GenerateRequest,
    GetStatusRequest,
    Inpaint,
    MaskFreeEdit,
    Outpaint,
    Vary,
)
from muse_client import AsyncMuseClient

from services.orchestrator.__main__ import Settings, build
from services.orchestrator.callers.costs import steps_of
from services.orchestrator.calls import Deadline
from services.orchestrator.requests import with_defaults
from services.runtime.server.process import ServerError
from services.runtime.wire.errors import RequestError
from services.stages import NO_STAGE
from tests.orchestrator.edits.conftest import Studio, studio
from tests.orchestrator.test_best_of import Nearest, choosy
from tests.orchestrator.test_expected_time import ALL, measured
from tests.picture_files import file_of, noise, pixels_of
from tests.small_stages import DEFAULTS, LOW, LOW_GRID, RESOLUTIONS, House, open_house

__all__ = ["choosy", "studio"]
STAGES = ["text_encoder", "base", "tokenizer"]
SIDE_PX, _ = RESOLUTIONS[LOW]
PICTURE = file_of(noise())
EDITS: list[dict[str, Any]] = [
    {"inpaint": Inpaint(image=PICTURE, mask=file_of(noise() | 255))},
    {"outpaint": Outpaint(image=PICTURE, right_px=16)},
    {"mask_free_edit": MaskFreeEdit(image=PICTURE, iterations=3, return_iterations=[1])},
    {"vary": Vary(image=PICTURE)},
]
KINDS = [{}, {"count": 3, "preview_every": 2, "progress": True}, *EDITS]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Three stages, and an orchestrator that calls no fourth."""
    async with open_house(superres=NO_STAGE) as opened:
        yield opened


async def test_a_picture_is_the_bases_tokens_as_the_tokenizer_decodes_them(house: House) -> None:
    events = await house.events(seed=77)

    (image,) = (event.image for event in events if event.WhichOneof("event") == "image")
    assert (image.width_px, image.height_px) == (SIDE_PX, SIDE_PX)
    assert (pixels_of(image.png) == 77).all()
    (decoded,) = house.stages["tokenizer"].asked
    assert (decoded.tokens.codebook, decoded.tokens.width) == (LOW, LOW_GRID)


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_timings_progress_and_provenance_name_the_stages_that_are_there(
    house: House, kind: dict[str, Any]
) -> None:
    *events, last = await house.events(**kind)

    assert list(house.stages) == STAGES
    images = [event.image for event in events if event.WhichOneof("event") == "image"]
    assert images
    for image in images:
        assert [timing.stage for timing in image.timings] == STAGES
        assert {call.timing.stage for call in image.calls} == {*STAGES}
        assert {decode.stage for decode in image.decodes} == {"base"}
    progress = [event.progress for event in events if event.WhichOneof("event") == "progress"]
    assert {each.stage for each in progress} == ({*STAGES} if kind.get("progress") else set())
    assert last.done.device_s.keys() == {*STAGES}
    provenance = last.done.provenance
    assert provenance.checkpoints.keys() == {*STAGES}
    assert provenance.base.steps
    assert not provenance.HasField("superres")


async def test_previews_are_those_of_the_base_and_the_last_is_the_picture(house: House) -> None:
    events = await house.events(preview_every=2)

    steps = [event.progress for event in events if event.WhichOneof("event") == "progress"]
    assert [(each.stage, each.step) for each in steps] == [("base", 2), ("base", 4), ("base", 5)]
    (image,) = (event.image for event in events if event.WhichOneof("event") == "image")
    assert (pixels_of(steps[-1].preview.png) == pixels_of(image.png)).all()


async def test_the_best_come_best_first(choosy: tuple[str, Nearest]) -> None:
    async with AsyncMuseClient(choosy[0]) as client:
        best = await client.generate("a fox", seed=4, count=2, best_of=8)

    assert [(each.rank, each.seed) for each in best] == [(0, 9), (1, 8)]


async def test_an_inpainting_changes_the_pixels_under_its_mask_alone(studio: Studio) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[:16, :16] = 255
    edit = Inpaint(image=PICTURE, mask=file_of(mask), feather_px=0)
    result = await studio.pixels(inpaint=edit)

    (base,) = studio.house.stages["base"].asked
    assert list(base.resume.known) == [0, 1, 1, 1]
    encoded, decoded = studio.house.stages["tokenizer"].asked  # once each
    assert (encoded.codebook, decoded.tokens.codebook) == (LOW, LOW)
    assert (result[mask == 0] == noise()[mask == 0]).all()
    assert (result[:12, :12] > noise().max()).all()


async def test_an_outpainting_keeps_the_picture_inside_the_larger_one(studio: Studio) -> None:
    result = await studio.pixels(outpaint=Outpaint(image=PICTURE, left_px=16), preview_every=2)

    assert result.shape == (32, 48, 3)
    assert (result[:, 16:] == noise()).all()
    assert (result[:, :8] > noise().max()).all()


async def test_a_variation_paints_a_share_of_the_bases_tokens(studio: Studio) -> None:
    result = await studio.pixels(vary=Vary(image=PICTURE, strength=0.25), prompt="")

    (base,) = studio.house.stages["base"].asked
    assert sum(base.resume.known) == 3
    assert result.shape == (32, 32, 3)


async def test_a_mask_free_edit_returns_the_iterations_asked_for(studio: Studio) -> None:
    edit = MaskFreeEdit(image=PICTURE, iterations=40, return_iterations=[10, 0])
    images = await studio.images(mask_free_edit=edit)

    assert [each.iteration for each in images] == [0, 10, 40]
    (base,) = studio.house.stages["base"].asked
    before = np.frombuffer(base.resume.tokens.ids, "<u2")
    _, *decoded = studio.house.stages["tokenizer"].asked
    shown = {tuple(np.frombuffer(each.tokens.ids, "<u2") - before) for each in decoded}
    assert shown == {(step,) * 4 for step in (0, 10, 40)}


async def test_adapters_reach_the_base(house: House) -> None:
    events = await house.events(adapters=[Adapter(name="owl")])

    assert "base/adapters/owl" in events[-1].done.provenance.checkpoints
    (base,) = house.stages["base"].asked
    assert [each.name for each in base.adapters] == ["owl"]


@pytest.mark.parametrize("edit", [{}, *EDITS], ids=str)
@pytest.mark.parametrize("parameters", [{"steps": 3}, {"guidance_scale": 0.0}, {"seed": 1}])
async def test_sampling_parameters_of_superres_are_refused_before_any_stage_works(
    house: House, edit: dict[str, Any], parameters: dict[str, float]
) -> None:
    refusal = await house.refusal(superres=Sampling(**parameters), **edit)

    ((field, value),) = parameters.items()
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [each.field for each in refusal.violations] == [f"superres.{field}"]
    assert f"expected not set: this system has no superres, got {value}" in refusal.message
    assert house.calls() == 0


async def test_a_message_of_superres_that_sets_nothing_is_no_mistake(house: House) -> None:
    events = await house.events(superres=Sampling())

    assert not events[-1].done.provenance.HasField("superres")


async def test_the_status_has_three_stages_and_the_side_of_the_bases_tokenizer(
    house: House,
) -> None:
    answer = await house.stub.GetStatus(GetStatusRequest(), timeout=5)

    assert [report.stage for report in answer.stages] == STAGES
    assert answer.side_px == SIDE_PX
    defaults = {each.stage: each.defaults for each in answer.stages if each.HasField("defaults")}
    assert defaults == {"base": DEFAULTS["base"]}
    await house.lines["base"].cut()
    assert (await house.stub.GetStatus(GetStatusRequest(), timeout=5)).side_px == 0


async def test_the_bases_codebook_must_be_one_of_the_tokenizers() -> None:
    async with open_house(superres=NO_STAGE) as house:
        house.stages["base"].fingerprints["codebook"] = "codebook:other"
        await house.lines["base"].cut()
        away = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert (await house.refusal(timeout_s=1)).code in away  # by now base is missed
        await house.lines["base"].restore()
        refusal = await house.refusal()
        while refusal.code is grpc.StatusCode.UNAVAILABLE:  # until the line is there again
            refusal = await house.refusal()

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.message.startswith(
        "base needs codebook codebook:other, but tokenizer serves codebook:low and codebook:high"
    )


def test_the_least_time_and_the_steps_of_a_request_have_no_part_of_superres() -> None:
    full = with_defaults(
        GenerateRequest(prompt="a fox", count=2),
        {"base": Sampling(steps=24, guidance_scale=4)},
        Sampling(),
    )
    fastest = measured({stage: ALL[stage] for stage in STAGES})

    fastest.check(full, Deadline(2.8))
    with pytest.raises(RequestError, match=r"at least 2\.75 s"):
        fastest.check(full, Deadline(2.7))
    assert steps_of(full, None) == 2 * 24


@pytest.mark.parametrize("stage", STAGES)
async def test_no_other_stage_can_be_left_out(stage: str) -> None:
    with pytest.raises(ServerError, match=f"^{stage}: .* got 'none'"):
        await build(Settings(port=0, **{stage: NO_STAGE}))  # type: ignore[arg-type]
