"""The status of an orchestrator: its own, and what every stage says now."""

from importlib.metadata import version

from muse.orchestrator.v1.orchestrator_pb2 import GetStatusRequest

from services.stages import STAGES
from tests.small_stages import DEFAULTS, HIGH_SIDE_PX, House


async def test_status_is_never_from_memory(house: House) -> None:
    await house.lines["superres"].cut()

    answer = await house.stub.GetStatus(GetStatusRequest(), timeout=5)

    assert [report.stage for report in answer.stages] == list(STAGES)
    assert [report.serving for report in answer.stages] == [True, True, False, True]
    assert "UNAVAILABLE" in answer.stages[2].unavailable_reason
    assert not answer.stages[2].HasField("status")


async def test_status_names_the_orchestrators_version(house: House) -> None:
    answer = await house.stub.GetStatus(GetStatusRequest(), timeout=5)

    assert answer.version == version("muse")


async def test_status_has_the_side_of_new_pictures_while_the_tokenizer_answers(
    house: House,
) -> None:
    assert (await house.stub.GetStatus(GetStatusRequest(), timeout=5)).side_px == HIGH_SIDE_PX
    await house.lines["tokenizer"].cut()

    assert (await house.stub.GetStatus(GetStatusRequest(), timeout=5)).side_px == 0


async def test_status_has_the_sampling_parameters_that_a_request_starts_from(house: House) -> None:
    answer = await house.stub.GetStatus(GetStatusRequest(), timeout=5)

    reported = {each.stage: each.defaults for each in answer.stages if each.HasField("defaults")}
    assert reported == DEFAULTS
