"""Checks a request before any stage is called, and sets what it left open."""

import secrets
from collections.abc import Mapping

from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.edits.limits import check_edit, iterations_of
from services.runtime.wire.caller import unpack_caller
from services.runtime.wire.errors import invalid_field
from services.runtime.wire.sampling import check_sampling
from services.sampling import MAX_STEPS, paper_default
from services.stages import DECODING

LONGEST_PROMPT = 4096
MOST_IMAGES = 16


def checked(request: GenerateRequest) -> GenerateRequest:
    """Returns the request with its count and seed set, everything in its range.

    The picture of an edit is left to `edits.read_source`, which takes longer. A prompt of more
    tokens than the text encoder takes passes here: only that stage can count them.

    Raises:
        RequestError: INVALID_ARGUMENT: a field is out of range.
    """
    if not request.prompt.strip() and request.WhichOneof("edit") != "vary":
        raise invalid_field("prompt", expected="a text", got="an empty one")
    for field in ("prompt", "negative_prompt"):
        length = len(getattr(request, field))
        if length > LONGEST_PROMPT:
            raise invalid_field(
                field, expected=f"at most {LONGEST_PROMPT} characters", got=f"{length} characters"
            )
    for stage in DECODING:
        _check_sampling(getattr(request, stage), stage)
    if request.preview_every > MAX_STEPS:
        raise invalid_field(
            "preview_every", expected=f"0 to {MAX_STEPS}", got=request.preview_every
        )
    check_edit(request)
    unpack_caller(request.caller)
    full = GenerateRequest()
    full.CopyFrom(request)
    if not request.prompt.strip():
        full.ClearField("prompt")
    if not request.HasField("count"):
        full.count = 1
    if not 1 <= full.count <= MOST_IMAGES:
        raise invalid_field("count", expected=f"1 to {MOST_IMAGES}", got=full.count)
    _check_best_of(full)
    if not request.HasField("seed"):
        full.seed = secrets.randbits(64)
    return full


def with_defaults(request: GenerateRequest, defaults: Mapping[str, Sampling]) -> GenerateRequest:
    """Returns the request with every knob set that it left open.

    Args:
        request: Checked.
        defaults: Of base and superres, by name, as these stages tell them.
    """
    full = GenerateRequest()
    full.CopyFrom(request)
    for stage in DECODING:
        knobs = getattr(full, stage)
        knobs.CopyFrom(defaults[stage])
        knobs.ClearField("seed")  # every picture has its own
        if stage == "base" and request.WhichOneof("edit") == "mask_free_edit":
            knobs.MergeFrom(_edit_knobs(request))
        knobs.MergeFrom(getattr(request, stage))
        if not (request.prompt.strip() or request.negative_prompt):
            knobs.guidance_scale = knobs.guidance_scale_start = 0  # nothing to guide by
    return full


def _check_best_of(request: GenerateRequest) -> None:
    if not request.best_of:
        return
    if not request.count <= request.best_of <= MOST_IMAGES:
        raise invalid_field(
            "best_of", expected=f"0, or {request.count} to {MOST_IMAGES}", got=request.best_of
        )
    if not request.prompt:
        raise invalid_field("best_of", expected="0 without a prompt", got=request.best_of)
    if request.mask_free_edit.return_iterations:
        raise invalid_field("best_of", expected="0 with return_iterations", got=request.best_of)


def _edit_knobs(request: GenerateRequest) -> Sampling:
    """Returns the knobs of a mask-free edit (Muse, section 3.3.2)."""
    guidance_scale = paper_default("guidance_scale")
    if request.base.HasField("guidance_scale"):
        guidance_scale = request.base.guidance_scale
    return Sampling(
        steps=iterations_of(request.mask_free_edit),
        guidance_scale=guidance_scale,
        guidance_scale_start=guidance_scale,
        top_k=3,
    )


def _check_sampling(sampling: Sampling, stage: str) -> None:
    if sampling.HasField("seed"):
        raise invalid_field(
            f"{stage}.seed", expected="not set", got=sampling.seed, advice="set the request's seed"
        )
    check_sampling(sampling, stage)
