"""Log lines and span events of a request, with the timings that the caller receives."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from muse.orchestrator.v1.orchestrator_pb2 import GeneratedImage
from opentelemetry import trace

from services.runtime.observability import span_attributes
from services.runtime.server.endings import status_of_cancelled
from services.runtime.wire.errors import RequestError

logger = logging.getLogger(__name__)
PARTS = ("queue_s", "compute_s", "transfer_s")


def log_image(image: GeneratedImage) -> None:
    """Logs the timings of an image, and adds them to the request's span as an event."""
    device_s = sum(timing.device_s for timing in image.timings)
    totals = {
        "wall_s": image.wall_s,
        **{part: sum(getattr(timing, part) for timing in image.timings) for part in PARTS},
        "overhead_s": image.overhead_s,
        "device_s": device_s,
    }
    stages = {
        timing.stage: {part: getattr(timing, part) for part in (*PARTS, "device_s")}
        for timing in image.timings
    }
    labels = {"index": image.index, "seed": image.seed}
    logger.info("a picture is done", extra={**labels, **totals, "stages": stages})
    trace.get_current_span().add_event(
        "picture", {span_attributes.muse(name): value for name, value in totals.items()}
    )


def log_blocked(index: int, seed: int, score: float) -> None:
    """Logs that the safety policy keeps an image back, and its score."""
    extra = {"index": index, "seed": seed, "score": score}
    logger.info("a picture is blocked", extra=extra)


@contextmanager
def log_request(caller: str, arrived_s: float, deadline_s: float = math.inf) -> Iterator[None]:
    """Logs the outcome of a request when its block ends.

    Args:
        caller: Who made it.
        arrived_s: time.monotonic() when it arrived.
        deadline_s: time.monotonic() at its deadline.
    """
    outcome = ""
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
        outcome = outcome or status_of_cancelled(deadline_s).name
        total_s = time.monotonic() - arrived_s
        extra = {"outcome": outcome, "total_s": total_s, "caller": caller}
        logger.info("a request has ended", extra=extra)
