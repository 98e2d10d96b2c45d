"""Conversion between the messages of a masked stage and decodes; requests are checked in full.

Source: protos/muse/common/v1/decoding.proto, which documents the range of each field.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Int
from muse.base.v1 import base_pb2
from muse.common.v1 import decoding_pb2, tensor_pb2

from services.decoding.slots import Progress
from services.decoding.state import Kind, Row, Sampling, fresh_row, state_of
from services.masked.spec import GenerateRequest
from services.runtime.wire.errors import invalid_field
from services.runtime.wire.sampling import check_sampling
from services.runtime.wire.tensors import pack_grid, unpack_grid
from services.sampling import MAX_STEPS

MASK_FREE_EDIT_FRACTION = 0.08  # of the tokens, resampled by each step (Muse, section 3.3.2)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The token grid that a stage decodes.

    Attributes:
        side: Tokens along one side.
        vocabulary: Number of codes; the [MASK] id is this number.
        codebook: Fingerprint of the codebook.
    """

    side: int
    vocabulary: int
    codebook: str


def read_sampling(message: decoding_pb2.Sampling, defaults: decoding_pb2.Sampling) -> Sampling:
    """Checks the sampling parameters of a request and fills in the stage's defaults.

    Raises:
        RequestError: INVALID_ARGUMENT: a parameter is out of its range or not a number.
    """
    merged = decoding_pb2.Sampling()
    merged.CopyFrom(defaults)
    merged.MergeFrom(message)
    check_sampling(merged, "sampling")
    return Sampling(**{field.name: getattr(merged, field.name) for field in fields(Sampling)})


def read_start(
    request: GenerateRequest,
    grid: Grid,
    defaults: decoding_pb2.Sampling,
    *,
    max_steps_within: Callable[[Sampling], int],
) -> Row:
    """Returns the start of the decode or mask-free edit that a request asks for.

    `max_steps_within` returns the most steps, up to `sampling.steps`, that end before the call's
    deadline, 0 for none; it is called only if the request allows fewer steps.

    Raises:
        RequestError: FAILED_PRECONDITION: the tokens are of another codebook. INVALID_ARGUMENT: a
            sampling parameter or the state to resume is malformed.
    """
    if isinstance(request, base_pb2.GenerateRequest) and request.HasField("mask_free_edit"):
        return read_mask_free_edit(request, grid, defaults)
    sampling = read_sampling(request.sampling, defaults)
    if request.sampling.HasField("min_steps"):
        least = request.sampling.min_steps
        if not request.resume.step:  # a resumed decode keeps its schedule
            # If not even `least` steps end in time, the scheduler refuses and says when to retry.
            sampling = replace(sampling, steps=max(least, max_steps_within(sampling)))
    return read_row(request.resume if request.HasField("resume") else None, sampling, grid)


def read_mask_free_edit(
    request: base_pb2.GenerateRequest,
    grid: Grid,
    defaults: decoding_pb2.Sampling,
) -> Row:
    """Returns the start of the mask-free edit that a request to base asks for.

    Raises:
        RequestError: FAILED_PRECONDITION: the tokens are of another codebook. INVALID_ARGUMENT:
            tokens are missing, all of them are known, or a parameter is out of its range.
    """
    sampling, resume = read_sampling(request.sampling, defaults), request.resume
    if request.sampling.HasField("min_steps"):
        raise invalid_field(
            "sampling.min_steps", expected="not set", got=request.sampling.min_steps
        )
    if not request.HasField("resume"):
        raise invalid_field("resume", expected="the tokens to change", got="none")
    edit = request.mask_free_edit
    fraction = edit.fraction if edit.HasField("fraction") else MASK_FREE_EDIT_FRACTION
    if not 0 < fraction <= 1:
        raise invalid_field("mask_free_edit.fraction", expected="more than 0 to 1", got=fraction)
    tokens, known = _tokens_and_known(resume, grid)
    unknown = int((~known).sum())
    if not unknown:
        raise invalid_field("resume.known", expected="an open token", got="none")
    if resume.step > sampling.steps:
        raise invalid_field("resume.step", expected=f"0 to {sampling.steps}", got=resume.step)
    return Row(
        tokens=tokens,
        known=known,
        sampling=sampling,
        unknown=max(1, round(fraction * unknown)),
        step=resume.step,
        kind=Kind.MASK_FREE_EDIT,
    )


def read_row(resume: decoding_pb2.DecodeState | None, sampling: Sampling, grid: Grid) -> Row:
    """Returns the start of a decode: a state to resume, or an image of unknown tokens.

    Raises:
        RequestError: FAILED_PRECONDITION: the state's tokens are of another codebook.
            INVALID_ARGUMENT: the state is truncated, or contradicts its own number of steps.
    """
    if resume is None:
        return fresh_row(grid.side**2, sampling)
    tokens, known = _tokens_and_known(resume, grid)
    unknown_now = int((~known).sum())
    unknown = resume.unknown if resume.step else unknown_now
    if not unknown_now <= unknown <= tokens.size:
        raise invalid_field(
            "resume.unknown", expected=f"{unknown_now} to {tokens.size}", got=resume.unknown
        )
    if resume.step and resume.total:  # a deadline may have cut the steps down
        if resume.total > MAX_STEPS:
            raise invalid_field("resume.total", expected=f"at most {MAX_STEPS}", got=resume.total)
        sampling = replace(sampling, steps=resume.total)
    if resume.step > sampling.steps:
        raise invalid_field("resume.step", expected=f"0 to {sampling.steps}", got=resume.step)
    row = Row(tokens=tokens, known=known, sampling=sampling, unknown=unknown, step=resume.step)
    try:
        state_of([row], mask_id=grid.vocabulary)
    except ValueError as error:
        raise invalid_field(
            "resume", expected="a state this stage handed out", got=f"a contradiction: {error}"
        ) from error
    return row


def _tokens_and_known(
    resume: decoding_pb2.DecodeState, grid: Grid
) -> tuple[Int[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    tokens = unpack_grid(
        resume.tokens,
        field="resume.tokens",
        codebook=grid.codebook,
        codebook_size=grid.vocabulary,
        shape=(grid.side, grid.side),
    ).reshape(-1)
    if len(resume.known) != tokens.size:
        raise invalid_field(
            "resume.known", expected=f"{tokens.size} bytes", got=f"{len(resume.known)} bytes"
        )
    return tokens, np.frombuffer(resume.known, np.uint8) != 0


def pack_state(progress: Progress | None, row: Row, grid: Grid) -> decoding_pb2.DecodeState:
    """Packs the state from which another call can resume a decode; None before a step."""
    if progress is None:
        progress = Progress(tokens=row.tokens, known=row.known, step=row.step, total=row.total)
    # All tokens of a mask-free edit count; unknown tokens of a decode are [MASK], which is no code.
    valid = progress.known | (row.kind is Kind.MASK_FREE_EDIT)
    return decoding_pb2.DecodeState(
        tokens=pack_tokens(np.where(valid, progress.tokens, 0), grid),
        known=progress.known.astype(np.uint8).tobytes(),
        step=progress.step,
        unknown=row.unknown,
        total=progress.total,
    )


def pack_tokens(tokens: Int[np.ndarray, " N"], grid: Grid) -> tensor_pb2.TokenGrid:
    """Packs the ids of an image."""
    return pack_grid(tokens.reshape(grid.side, grid.side), grid.codebook)
