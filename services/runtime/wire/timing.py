"""Times that a request spent in a stage's queue and on its device."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from muse.common.v1 import stage_pb2

Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True)
class Timed(Generic[Result]):
    """A result and the time that it took.

    Attributes:
        result: Result of the request.
        queue_s: Seconds from the arrival to the start of compute, and those without a slot after
            it.
        compute_s: The other seconds until the result: the whole batch's time, or all the time in
            slots.
        device_s: The request's share of the device: an equal part of a batch, and of each step the
            share of its rows. Summed over all requests, this is the time the device was busy.
    """

    result: Result
    queue_s: float
    compute_s: float
    device_s: float


def pack_timing(stage: str, timed: Timed[object]) -> stage_pb2.StageTiming:
    """Returns the message of a request's times in a stage."""
    return stage_pb2.StageTiming(
        stage=stage, queue_s=timed.queue_s, compute_s=timed.compute_s, device_s=timed.device_s
    )
