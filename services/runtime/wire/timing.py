"""Where the time of one request went."""

from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Timed(Generic[Result]):
    """A result and where the time to it went.

    Attributes:
        result: Of the request.
        queue_s: From arrival to the start of compute.
        compute_s: From there to the result: of a request in a batch, the batch's time; of one that
            held a slot, the time it held it.
        device_s: Its share of the device: of a batch as many parts as there were requests, of each
            step as many as rows. Over all requests that is the time the device was busy.
    """

    result: Result
    queue_s: float
    compute_s: float
    device_s: float
