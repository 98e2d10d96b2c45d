"""What a stage refuses is the caller's fault only in fields that the caller wrote."""

from typing import Any

import grpc
import pytest

from services.runtime.wire.errors import RequestError, invalid_field
from tests.small_stages import House


def refuse_once(behaviour: Any, error: RequestError) -> None:
    """Makes a stage refuse its next call."""
    errors = [error]

    async def around(_: int) -> None:
        if errors:
            raise errors.pop()

    behaviour.around = around


async def test_a_field_that_the_caller_wrote_is_refused_as_the_callers(house: House) -> None:
    error = invalid_field("sampling.steps", expected="1 to 256", got=300)
    refuse_once(house.stages["superres"], error)

    refusal = await house.refusal()

    assert (refusal.code, refusal.message) == (error.code, error.message)
    assert refusal.violations == error.violations


@pytest.mark.parametrize(
    "error",
    [
        invalid_field("low_resolution.tokens", expected="16x16", got="8x8"),
        RequestError(grpc.StatusCode.INVALID_ARGUMENT, "no message"),
    ],
)
async def test_a_field_that_the_orchestrator_made_is_no_fault_of_the_caller(
    house: House, error: RequestError
) -> None:
    refuse_once(house.stages["superres"], error)

    refusal = await house.refusal()

    assert refusal.code is grpc.StatusCode.INTERNAL
    made = "stage superres refused what the orchestrator made of the request: "
    assert refusal.message == made + error.message
    assert not refusal.violations
    assert await house.works()
