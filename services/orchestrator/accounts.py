"""What the log and the trace say of a request: the very numbers that the caller is told."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from muse.common.v1.stage_pb2 import StageTiming
from muse.orchestrator.v1.orchestrator_pb2 import GeneratedImage, GenerateRequest
from opentelemetry import trace

from services.runtime.observability import span_attributes
from services.runtime.wire.errors import RequestError

logger = logging.getLogger(__name__)
PARTS = ("queue_s", "compute_s", "transfer_s")


def sums(timings: Sequence[StageTiming]) -> dict[str, float]:
    """Returns the seconds of all stages together, by part: queue_s, compute_s, transfer_s."""
    return {part: sum(getattr(timing, part) for timing in timings) for part in PARTS}


def tell_picture(image: GeneratedImage) -> None:
    """Writes where the time of a picture went to the log, and to the request's span."""
    device_s = sum(timing.device_s for timing in image.timings)
    account = {
        "wall_s": image.wall_s,
        **sums(image.timings),
        "overhead_s": image.overhead_s,
        "device_s": device_s,
    }
    stages = {
        timing.stage: {part: getattr(timing, part) for part in (*PARTS, "device_s")}
        for timing in image.timings
    }
    named = {"index": image.index, "seed": image.seed}
    logger.info("a picture is done", extra={**named, **account, "stages": stages})
    trace.get_current_span().add_event(
        "picture", {span_attributes.muse(name): value for name, value in account.items()}
    )


@contextmanager
def told_request(request: GenerateRequest, arrived_s: float) -> Iterator[None]:
    """Writes to the log how a request ended, and after how long.

    Args:
        request: As it came.
        arrived_s: time.monotonic() when it came.
    """
    outcome = "CANCELLED"
    try:
        yield
        outcome = "OK"
    except RequestError as error:
        outcome = error.code.name
        raise
    except Exception:
        outcome = "INTERNAL"
        raise
    finally:
        total_s = time.monotonic() - arrived_s
        extra = {"outcome": outcome, "total_s": total_s, "caller": request.caller.id}
        logger.info("a request has ended", extra=extra)
