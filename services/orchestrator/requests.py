"""Checks of a request before any stage is called, and defaults of the fields it leaves unset."""

import secrets
from collections.abc import Collection, Mapping

from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.edits.registry import edit_kind
from services.orchestrator.picture_files import set_format
from services.runtime.wire.adapters import unpack_adapters
from services.runtime.wire.caller import unpack_caller
from services.runtime.wire.errors import invalid_field
from services.runtime.wire.sampling import check_sampling
from services.sampling import MAX_STEPS
from services.stages import DECODING, StageName

MAX_PROMPT_LENGTH = 4096
MAX_IMAGES = 16


def checked(request: GenerateRequest, decoding: Collection[StageName]) -> GenerateRequest:
    """Returns a copy of a request with count, seed, weights and format set; checks every range.

    `edits.sources` checks the picture of an edit, since decoding it takes longer. The text encoder
    checks the number of tokens of a prompt, since only it can count them.

    Args:
        request: The request.
        decoding: Names of the stages of this system that decode tokens.

    Raises:
        RequestError: INVALID_ARGUMENT: a field is out of range.
    """
    edit = edit_kind(request)
    if not request.prompt.strip() and (edit is None or edit.needs_prompt):
        raise invalid_field("prompt", expected="a text", got="an empty one")
    for field in ("prompt", "negative_prompt"):
        length = len(getattr(request, field))
        if length > MAX_PROMPT_LENGTH:
            raise invalid_field(
                field,
                expected=f"at most {MAX_PROMPT_LENGTH} characters",
                got=f"{length} characters",
            )
    for stage in DECODING:
        parameters = getattr(request, stage)
        if stage not in decoding and parameters.ListFields():
            field, value = parameters.ListFields()[0]
            raise invalid_field(
                f"{stage}.{field.name}", expected=f"not set: this system has no {stage}", got=value
            )
        _check_sampling(parameters, stage)
    if request.preview_every > MAX_STEPS:
        raise invalid_field(
            "preview_every", expected=f"0 to {MAX_STEPS}", got=request.preview_every
        )
    if edit is not None:
        edit.check(request)
    unpack_caller(request.caller)
    weights = unpack_adapters(request.adapters)
    full = GenerateRequest()
    full.CopyFrom(request)
    for adapter in full.adapters:
        adapter.weight = weights[adapter.name]
    if not request.prompt.strip():
        full.ClearField("prompt")
    if not request.HasField("count"):
        full.count = 1
    if not 1 <= full.count <= MAX_IMAGES:
        raise invalid_field("count", expected=f"1 to {MAX_IMAGES}", got=full.count)
    _check_best_of(full)
    set_format(full)
    if not request.HasField("seed"):
        full.seed = secrets.randbits(64)
    return full


def with_defaults(
    request: GenerateRequest, defaults: Mapping[StageName, Sampling], of_edits: Sampling
) -> GenerateRequest:
    """Returns a copy of a checked request with every sampling parameter set.

    Args:
        request: The request.
        defaults: Default sampling parameters of each stage that decodes, by name.
        of_edits: Those of the base's checkpoint for mask-free edits.
    """
    full, edit = GenerateRequest(), edit_kind(request)
    full.CopyFrom(request)
    for stage, default in defaults.items():
        parameters = getattr(full, stage)
        parameters.CopyFrom(default)
        parameters.ClearField("seed")  # every image has its own
        if stage == "base" and edit is not None:
            parameters.MergeFrom(edit.base_sampling(request, of_edits))
        parameters.MergeFrom(getattr(request, stage))
        if not (request.prompt.strip() or request.negative_prompt):
            parameters.guidance_scale = parameters.guidance_scale_start = 0  # nothing to guide by
    return full


def _check_best_of(request: GenerateRequest) -> None:
    if not request.best_of:
        return
    if not request.count <= request.best_of <= MAX_IMAGES:
        raise invalid_field(
            "best_of", expected=f"0, or {request.count} to {MAX_IMAGES}", got=request.best_of
        )
    if not request.prompt:
        raise invalid_field("best_of", expected="0 without a prompt", got=request.best_of)
    if request.mask_free_edit.return_iterations:
        raise invalid_field("best_of", expected="0 with return_iterations", got=request.best_of)


def _check_sampling(sampling: Sampling, stage: str) -> None:
    if sampling.HasField("seed"):
        raise invalid_field(
            f"{stage}.seed", expected="not set", got=sampling.seed, advice="set the request's seed"
        )
    check_sampling(sampling, stage)
