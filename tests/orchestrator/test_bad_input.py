"""Bad input is refused by its field before any stage is called, and the next request works."""

from typing import Any

import grpc
import pytest
from muse.common.v1.caller_pb2 import Caller
from muse.common.v1.decoding_pb2 import Adapter, Sampling

from tests.small_stages import House

INVALID: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": ""}),
    ("prompt", {"prompt": " \n\t"}),
    ("prompt", {"prompt": "x" * 4097}),
    ("negative_prompt", {"negative_prompt": "x" * 4097}),
    ("count", {"count": 0}),
    ("count", {"count": 17}),
    ("count", {"count": 1000}),
    ("caller.id", {"caller": Caller(id="x" * 65)}),
    ("caller.priority", {"caller": Caller(priority=7)}),
    ("adapters", {"adapters": [Adapter(name=str(number)) for number in range(9)]}),
    ("adapters[0].name", {"adapters": [Adapter()]}),
    ("adapters[1].name", {"adapters": [Adapter(name="fox"), Adapter(name="fox")]}),
    *(
        ("adapters[0].weight", {"adapters": [Adapter(name="fox", weight=weight)]})
        for weight in (float("nan"), float("inf"), 10.5, -1e9)
    ),
    *(
        (f"{stage}.{name}", {stage: Sampling(**{name: value})})
        for stage in ("base", "superres")
        for name, value in (
            ("steps", 0),
            ("steps", 10_000),
            ("guidance_scale", float("nan")),
            ("guidance_scale", -0.5),
            ("guidance_scale", 101.0),
            ("guidance_scale_start", float("inf")),
            ("temperature", float("nan")),
            ("temperature", -1.0),
            ("choice_temperature", 1001.0),
            ("top_k", 65_537),
            ("seed", 3),
        )
    ),
]


@pytest.mark.parametrize(("field", "wrong"), INVALID)
async def test_it_names_the_field_calls_no_stage_and_the_next_request_works(
    house: House, field: str, wrong: dict[str, Any]
) -> None:
    refusal = await house.refusal(**wrong)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in refusal.violations] == [field]
    assert "expected" in refusal.message
    assert house.calls() == 0
    assert await house.works()


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
async def test_a_text_of_too_many_tokens_is_refused_in_the_callers_words(
    house: House, field: str
) -> None:
    refusal = await house.refusal(**{field: "fox " * 33})

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in refusal.violations] == [field]
    assert refusal.message.startswith(f"{field}: expected at most 32 tokens")
    assert not house.stages["base"].asked
    assert await house.works()


async def test_the_ends_of_every_range_are_allowed(house: House) -> None:
    least = Sampling(
        steps=1, guidance_scale=0, guidance_scale_start=0, temperature=0, choice_temperature=0
    )
    most = Sampling(
        steps=256,
        guidance_scale=100,
        guidance_scale_start=100,
        temperature=100,
        choice_temperature=1000,
    )
    most.top_k = 65_536

    events = await house.events(prompt="x" * 4096, base=least, superres=most, seed=2**64 - 1)

    provenance = events[-1].done.provenance
    assert (provenance.base.steps, provenance.base.guidance_scale) == (1, 0.0)
    assert (provenance.superres.steps, provenance.superres.top_k) == (256, 65_536)
