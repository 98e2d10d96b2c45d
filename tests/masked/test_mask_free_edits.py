"""Mask-free edits of base: every step draws a share of the tokens anew."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
from muse.base.v1.base_pb2 import GenerateRequest, MaskFreeEdit
from muse.common.v1.decoding_pb2 import DecodeState, ProgressDetail, Sampling

from services.masked.defaults import paper_defaults
from services.masked.requests import Grid, read_mask_free_edit
from services.presets import preset
from services.runtime.wire.errors import read_error
from services.runtime.wire.tensors import pack_grid
from tests.masked.conftest import Stage

TINY = preset("tiny")
LOW = "codebook:low"
SIDE = TINY.base.grid
TOKENS = SIDE**2
STATES = ProgressDetail.PROGRESS_DETAIL_STATES

pytestmark = pytest.mark.asyncio(loop_scope="module")


def tokens_of(grid: Any) -> np.ndarray:
    return np.frombuffer(grid.ids, "<u2").astype(int)


def start(known: bytes = bytes(TOKENS), seed: int = 0) -> DecodeState:
    """Some image's tokens, by default all of them open."""
    ids = np.random.default_rng(seed).integers(0, TINY.base.vocabulary, (SIDE, SIDE))
    return DecodeState(tokens=pack_grid(ids, LOW), known=known)


def edit(base: Stage, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "resume": start(),
        "mask_free_edit": MaskFreeEdit(fraction=0.25),
        "sampling": Sampling(steps=10, guidance_scale=4, guidance_scale_start=4, top_k=3, seed=5),
        "progress": STATES,
    }
    return base.request(**(fields | changes))


async def test_each_iteration_changes_at_most_its_share_and_the_last_is_the_result(
    base: Stage,
) -> None:
    events = await base.events(edit(base))

    *states, result = events
    assert [each.progress.step for each in states] == list(range(1, 11))
    before = tokens_of(start().tokens)
    for each in states:
        after = tokens_of(each.progress.state.tokens)
        assert (before != after).sum() <= TOKENS // 4
        before = after
    assert (before == tokens_of(result.result.tokens)).all()
    assert (before != tokens_of(start().tokens)).any()
    assert result.result.steps == 10


async def test_of_the_papers_256_tokens_each_step_draws_the_papers_8_percent_by_default() -> None:
    tokens = pack_grid(np.zeros((16, 16), int), LOW)
    request = GenerateRequest(
        resume=DecodeState(tokens=tokens, known=bytes(256)), mask_free_edit=MaskFreeEdit()
    )

    row = read_mask_free_edit(
        request, Grid(side=16, vocabulary=8192, codebook=LOW), paper_defaults(24)
    )

    assert row.unknown == 20  # 0.08 x 256 = 20.48


async def test_known_tokens_stay_and_the_default_share_is_eight_in_a_hundred(base: Stage) -> None:
    known = bytes([1] * (TOKENS // 2) + [0] * (TOKENS // 2))
    events = await base.events(edit(base, resume=start(known), mask_free_edit=MaskFreeEdit()))

    first, last = (tokens_of(grid) for grid in (start().tokens, events[-1].result.tokens))
    assert (first[: TOKENS // 2] == last[: TOKENS // 2]).all()
    after_one = tokens_of(events[0].progress.state.tokens)
    assert (first != after_one).sum() <= max(1, round(0.08 * TOKENS / 2))


async def test_any_iteration_can_be_gone_on_from_to_the_same_tokens(base: Stage) -> None:
    events = await base.events(edit(base))
    for at in (0, 4, 9):
        resumed = await base.events(edit(base, resume=events[at].progress.state))
        assert resumed[-1].result.tokens == events[-1].result.tokens


async def test_an_edit_is_the_same_alone_and_among_other_requests(base: Stage) -> None:
    alone = (await base.events(edit(base)))[-1].result.tokens
    others = [base.events(base.request(sampling=Sampling(steps=9, seed=s))) for s in range(3)]
    in_company = (await asyncio.gather(base.events(edit(base)), *others))[0]
    assert in_company[-1].result.tokens == alone


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mask_free_edit": MaskFreeEdit(fraction=0)}, "mask_free_edit.fraction"),
        ({"mask_free_edit": MaskFreeEdit(fraction=2)}, "mask_free_edit.fraction"),
        ({"mask_free_edit": MaskFreeEdit(fraction=float("nan"))}, "mask_free_edit.fraction"),
        ({"resume": None}, "resume"),
        ({"resume": start(bytes([1] * TOKENS))}, "resume.known"),
        ({"resume": start(bytes(3))}, "resume.known"),
        ({"resume": DecodeState(tokens=start().tokens, known=bytes(TOKENS), step=11)}, "resume.st"),
        ({"sampling": Sampling(steps=10, min_steps=3)}, "sampling.min_steps"),
        ({"sampling": Sampling(steps=257)}, "sampling.steps"),
    ],
)
async def test_a_bad_edit_is_refused_by_its_field_and_the_next_works(
    base: Stage, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await base.events(edit(base, **changes))

    refusal = read_error(caught.value)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations[0].field.startswith(field)
    assert (await base.events(edit(base)))[-1].WhichOneof("event") == "result"
