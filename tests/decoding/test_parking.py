"""A decode that loses its slot to another caller's gives the tokens of a quiet run."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from services.decoding.pool import DecodePool, DecodeRequest
from services.decoding.slots import Progress
from services.decoding.state import Kind, Row, Sampling, fresh_row
from services.presets import preset
from services.runtime.checkpoints.adapters import Adapter
from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.wire.caller import Caller
from services.runtime.wire.timing import Timed
from tests.decoding.conftest import base_parameters
from tests.drawn_adapters import drawn_adapter

TINY = preset("tiny").base
STEPS = 12
SAMPLING = Sampling(steps=STEPS, guidance_scale=3.0, guidance_scale_start=1.0, seed=5)


@pytest.fixture(scope="module")
def two_slots(
    build_base_pool: Callable[..., DecodePool], tmp_path_factory: pytest.TempPathFactory
) -> DecodePool:
    """A pool of two slots with two adapters, warmed up."""
    folder, parameters = tmp_path_factory.mktemp("adapters"), base_parameters()
    adapters: dict[str, Adapter] = {
        name: drawn_adapter(folder / name, parameters, rank=2, seed=seed)
        for seed, name in enumerate(("fox", "owl"))
    }
    pool = build_base_pool(slots=2, adapters=adapters)
    pool.warm_up()
    return pool


def edit() -> Row:
    """Returns a mask-free edit, whose tokens all count while some of them are resampled."""
    known = np.arange(TINY.tokens) % 3 == 0
    return Row(
        tokens=np.arange(TINY.tokens) % TINY.vocabulary,
        known=known,
        sampling=SAMPLING,
        unknown=5,
        kind=Kind.MASK_FREE_EDIT,
    )


@pytest.mark.parametrize("negative", [None, 3])
@pytest.mark.parametrize("adapters", [{}, {"fox": 0.7, "owl": -1.0}])
@pytest.mark.parametrize("row", [fresh_row(TINY.tokens, SAMPLING), edit()], ids=["new", "edit"])
def test_a_parked_decode_streams_and_ends_as_in_a_quiet_run(
    two_slots: DecodePool,
    make_request: Callable[..., DecodeRequest],
    alone: Callable[..., list[Progress]],
    row: Row,
    adapters: dict[str, float],
    negative: int | None,
) -> None:
    victim = replace(make_request(row, text=4, negative=negative), adapters=adapters)
    company = make_request(fresh_row(TINY.tokens, replace(SAMPLING, steps=STEPS - 1)), text=2)
    newcomer = make_request(fresh_row(TINY.tokens, replace(SAMPLING, steps=3)), text=1)
    quiet = alone(two_slots, victim)
    scheduler = SlotScheduler[DecodeRequest, Progress](two_slots, max_queued=8)
    events: dict[str, list[object]] = {name: [] for name in ("victim", "company", "newcomer")}
    flood = Caller(id="flood")
    state = scheduler.submit(victim, events["victim"].append, stream=True, caller=flood)
    scheduler.submit(company, events["company"].append, stream=False, caller=flood)
    for _ in range(5):
        scheduler.tick()
    scheduler.submit(newcomer, events["newcomer"].append, stream=False, caller=Caller(id="other"))
    while scheduler.tick():
        pass

    assert len(state.stays) == 2
    assert all(isinstance(events[name][-1], Timed) for name in events)
    steps = [event for event in events["victim"] if isinstance(event, Progress)]
    assert [each.step for each in steps] == list(range(1, STEPS + 1))
    for each in steps:
        assert np.array_equal(each.tokens, quiet[each.step].tokens)
        assert np.array_equal(each.known, quiet[each.step].known)
    (ended,) = [event for event in events["victim"] if isinstance(event, Timed)]
    assert np.array_equal(ended.result.tokens, quiet[-1].tokens)
