"""What a call asks of a replica, in the unit in which replicas of a stage are compared."""

from typing import Any

from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest


def work_of(request: Any) -> int:
    """Returns what a call asks of a replica, at least 1.

    Args:
        request: Of base or superres, with its knobs set: steps that are left, times the rows that
            each computes (two with guidance). Of any other call: 1.
    """
    if not isinstance(request, BaseRequest | SuperresRequest):
        return 1
    knobs = request.sampling
    resampled = isinstance(request, BaseRequest) and request.HasField("resample")
    total = (0 if resampled else request.resume.total) or knobs.steps
    rows = 2 if knobs.guidance or knobs.first_guidance else 1
    return max(1, total - request.resume.step) * rows
