"""Checks a request before anything is computed, and sets what it left open."""

import math
import secrets
from typing import Any

import grpc
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.runtime.errors import RequestError, invalid_field

LONGEST_PROMPT = 4096
MOST_IMAGES = 16
MOST_STEPS = 256
MOST_TOP_K = 65_536  # ids have two bytes on the wire
SEEDS = 2**64
RANGES = {
    "guidance": (0.0, 100.0, 4.0),
    "first_guidance": (0.0, 100.0, 0.0),
    "temperature": (0.0, 100.0, 1.0),
    "confidence_noise": (0.0, 1000.0, 4.5),
}


def completed(request: GenerateRequest) -> GenerateRequest:
    """Returns the request with every knob set.

    Raises:
        RequestError: INVALID_ARGUMENT: a field is out of range. UNIMPLEMENTED: it is an edit.
    """
    if request.WhichOneof("edit"):
        raise RequestError(
            grpc.StatusCode.UNIMPLEMENTED, f"{request.WhichOneof('edit')}: edits are not served yet"
        )
    if not request.prompt.strip():
        raise invalid_field("prompt", expected="a text", got="an empty one")
    for field in ("prompt", "negative_prompt"):
        length = len(getattr(request, field))
        if length > LONGEST_PROMPT:
            raise invalid_field(
                field, expected=f"at most {LONGEST_PROMPT} characters", got=f"{length} characters"
            )
    full = GenerateRequest()
    full.CopyFrom(request)
    if not request.HasField("count"):
        full.count = 1
    if not 1 <= full.count <= MOST_IMAGES:
        raise invalid_field("count", expected=f"1 to {MOST_IMAGES}", got=full.count)
    if not request.HasField("seed"):
        full.seed = secrets.randbits(64)
    full.base.CopyFrom(_sampling(request.base, "base", default_steps=24))
    full.superres.CopyFrom(_sampling(request.superres, "superres", default_steps=8))
    return full


def _sampling(sampling: Sampling, field: str, *, default_steps: int) -> Sampling:
    full = Sampling()
    full.CopyFrom(sampling)
    if sampling.HasField("seed"):
        raise invalid_field(
            f"{field}.seed", expected="not set", got=sampling.seed, advice="set the request's seed"
        )
    if not sampling.HasField("steps"):
        full.steps = default_steps
    if not 1 <= full.steps <= MOST_STEPS:
        raise invalid_field(f"{field}.steps", expected=f"1 to {MOST_STEPS}", got=full.steps)
    if full.top_k > MOST_TOP_K:
        raise invalid_field(f"{field}.top_k", expected=f"0 to {MOST_TOP_K}", got=full.top_k)
    full.top_k = full.top_k  # sets it: the receipt names every knob
    knobs: Any = full
    for name, (least, most, default) in RANGES.items():
        if not knobs.HasField(name):
            setattr(knobs, name, default)
        value = getattr(knobs, name)
        if not math.isfinite(value) or not least <= value <= most:
            raise invalid_field(f"{field}.{name}", expected=f"{least:g} to {most:g}", got=value)
    return full
