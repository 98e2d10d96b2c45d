"""Adapters that a request names reach the stages that have them, in every call of the request."""

import json
from io import BytesIO
from typing import Any

import grpc
import pytest
from muse.common.v1.decoding_pb2 import Adapter
from muse.orchestrator.v1.orchestrator_pb2 import Inpaint, MaskFreeEdit, Outpaint, Vary
from PIL import Image

from services.runtime.wire.errors import RequestError
from tests.picture_files import file_of, noise
from tests.small_stages import ADAPTERS, House

BOTH = [Adapter(name="owl", weight=0.5), Adapter(name="fox")]
PICTURE = file_of(noise())
WHITE = file_of(noise() | 255)
EDITS: list[dict[str, Any]] = [
    {"inpaint": Inpaint(image=PICTURE, mask=WHITE)},
    {"outpaint": Outpaint(image=PICTURE, right_px=16)},
    {"mask_free_edit": MaskFreeEdit(image=PICTURE, iterations=3, return_iterations=[1])},
    {"vary": Vary(image=PICTURE)},
]


def named(request: Any) -> dict[str, float]:
    """The weights of a request to a stage, all of them set."""
    assert all(each.HasField("weight") for each in request.adapters)
    return {each.name: each.weight for each in request.adapters}


@pytest.mark.parametrize("kind", [{}, {"count": 2, "preview_every": 2}, *EDITS], ids=str)
async def test_each_stage_gets_those_that_it_has_in_every_call(
    house: House, kind: dict[str, Any]
) -> None:
    events = await house.events(adapters=BOTH, **kind)

    assert events[-1].WhichOneof("event") == "done"
    for stage, expected in (("base", {"owl": 0.5, "fox": 1.0}), ("superres", {"owl": 0.5})):
        asked = house.stages[stage].asked
        assert asked
        assert all(named(request) == expected for request in asked)


async def test_a_decode_that_is_preempted_goes_on_with_its_adapters(house: House) -> None:
    base = house.stages["base"]
    base.preempts_at, base.steps_before_around = [2], 2  # the small stage keeps what resumes

    await house.events(adapters=BOTH)

    (resumed,) = base.asked
    assert resumed.resume.step == 2
    assert named(resumed) == {"owl": 0.5, "fox": 1.0}


async def test_provenance_and_file_name_the_adapters_their_weights_and_digests(
    house: House,
) -> None:
    events = await house.events(adapters=BOTH)
    image, provenance = events[-2].image, events[-1].done.provenance

    assert named(provenance) == {"owl": 0.5, "fox": 1.0}
    digests = {
        "base/adapters/fox": ADAPTERS["base"]["fox"],
        "base/adapters/owl": ADAPTERS["base"]["owl"],
        "superres/adapters/owl": ADAPTERS["superres"]["owl"],
    }
    assert digests.items() <= dict(provenance.checkpoints).items()
    text = Image.open(BytesIO(image.png)).text  # type: ignore[attr-defined]
    assert json.loads(text["adapters"]) == {"owl": 0.5, "fox": 1.0}
    assert digests.items() <= json.loads(text["checkpoints"]).items()


async def test_a_request_without_adapters_names_none(house: House) -> None:
    events = await house.events()

    assert not house.stages["base"].asked[0].adapters
    assert not events[-1].done.provenance.adapters
    assert not any("/adapters/" in path for path in events[-1].done.provenance.checkpoints)
    assert "adapters" not in Image.open(BytesIO(events[-2].image.png)).text  # type: ignore[attr-defined]


async def test_a_name_that_no_stage_has_is_refused_before_any_call(house: House) -> None:
    refusal = await house.refusal(adapters=[Adapter(name="fox"), Adapter(name="cat")])

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.message == "adapters[1].name: expected one of fox, owl, got 'cat'"
    assert [each.field for each in refusal.violations] == ["adapters[1].name"]
    assert house.calls() == 0
    assert await house.works()


async def test_a_stage_that_lost_an_adapter_is_queried_before_the_next_request(
    house: House,
) -> None:
    base, fox = house.stages["base"], [Adapter(name="fox")]
    await house.events(adapters=fox)
    base.adapters = {}

    def refuse(seed: int) -> None:
        raise RequestError(grpc.StatusCode.NOT_FOUND, "adapters[0].name: gone")

    base.around = refuse
    assert (await house.refusal(adapters=fox)).message == "stage base: adapters[0].name: gone"
    base.around = None
    refusal = await house.refusal(adapters=fox)
    assert refusal.message == "adapters[0].name: expected one of owl, got 'fox'"


async def test_the_status_lists_the_adapters_of_each_stage(house: House) -> None:
    from muse.orchestrator.v1.orchestrator_pb2 import GetStatusRequest

    answer = await house.stub.GetStatus(GetStatusRequest())

    listed = {each.stage: dict(each.status.adapters) for each in answer.stages}
    assert listed == {"text_encoder": {}, "tokenizer": {}, **ADAPTERS}
