"""Messages of a decode to rows and back, everything checked before any compute.

Source: protos/muse/common/v1/decoding.proto, which says what each field may hold.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from muse.common.v1 import decoding_pb2, tensor_pb2

from services.decoding.pool import Progress
from services.decoding.state import Kind, Row, Sampling, fresh_row, state_of
from services.runtime.limits import MAX_STEPS
from services.runtime.wire.errors import invalid_field
from services.runtime.wire.sampling import check_sampling
from services.runtime.wire.tensors import pack_grid, unpack_grid

RESAMPLED_FRACTION = 0.08  # of the tokens, a step of a mask-free edit (Muse, section 3.3.2)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The tokens a stage decodes.

    Attributes:
        side: Tokens along one side.
        vocabulary: Codes; the [MASK] id is this.
        codebook: Fingerprint of the codebook they index.
    """

    side: int
    vocabulary: int
    codebook: str


def read_sampling(message: decoding_pb2.Sampling, defaults: decoding_pb2.Sampling) -> Sampling:
    """Checks the knobs of a decode and fills in what is not set.

    Args:
        message: The knobs.
        defaults: Of the stage, every one set.

    Raises:
        RequestError: INVALID_ARGUMENT: a knob is out of its range or not a number.
    """
    knobs = decoding_pb2.Sampling()
    knobs.CopyFrom(defaults)
    knobs.MergeFrom(message)
    check_sampling(knobs, "sampling")
    return Sampling(
        steps=knobs.steps,
        guidance=knobs.guidance,
        first_guidance=knobs.first_guidance,
        temperature=knobs.temperature,
        confidence_noise=knobs.confidence_noise,
        top_k=min(knobs.top_k, 2**31 - 1),
        seed=knobs.seed,
    )


def read_decode(
    request: Any,
    grid: Grid,
    defaults: decoding_pb2.Sampling,
    *,
    most_in_time: Callable[[Sampling], int],
) -> Row:
    """Returns the start of the decode that a request of base or superres asks for.

    Args:
        request: Its `GenerateRequest`.
        grid: What the stage decodes.
        defaults: Of the stage's knobs, every one set.
        most_in_time: Most steps, up to those of the knobs, that are done before the call's
            deadline; 0 if none are. Asked only where the request allows fewer than it wants.

    Raises:
        RequestError: FAILED_PRECONDITION: a state's tokens are of another codebook.
            INVALID_ARGUMENT: a knob or the state is not what it may be.
    """
    sampling = read_sampling(request.sampling, defaults)
    if request.sampling.HasField("minimum_steps"):
        least = request.sampling.minimum_steps
        if not request.resume.step:  # a decode under way keeps its schedule
            # Where not even the fewest are in time, the scheduler refuses and says when to retry.
            sampling = replace(sampling, steps=max(least, most_in_time(sampling)))
    return read_row(request.resume if request.HasField("resume") else None, sampling, grid)


def read_resampling(
    request: Any,
    grid: Grid,
    defaults: decoding_pb2.Sampling,
) -> Row:
    """Returns the start of the mask-free edit that a request of base asks for.

    Args:
        request: Its `GenerateRequest`, which has `resample`.
        grid: What the stage decodes.
        defaults: Of the stage's knobs, every one set.

    Raises:
        RequestError: FAILED_PRECONDITION: the tokens are of another codebook. INVALID_ARGUMENT:
            there are none, none of them is open, or a knob is out of its range.
    """
    sampling, resume = read_sampling(request.sampling, defaults), request.resume
    if request.sampling.HasField("minimum_steps"):
        raise invalid_field(
            "sampling.minimum_steps", expected="not set", got=request.sampling.minimum_steps
        )
    if not request.HasField("resume"):
        raise invalid_field("resume", expected="the tokens to change", got="none")
    asked = request.resample
    fraction = asked.fraction if asked.HasField("fraction") else RESAMPLED_FRACTION
    if not 0 < fraction <= 1:
        raise invalid_field("resample.fraction", expected="more than 0 to 1", got=fraction)
    tokens, known = _tokens_and_known(resume, grid)
    still_open = int((~known).sum())
    if not still_open:
        raise invalid_field("resume.known", expected="an open token", got="none")
    if resume.step > sampling.steps:
        raise invalid_field("resume.step", expected=f"0 to {sampling.steps}", got=resume.step)
    return Row(
        tokens=tokens,
        known=known,
        sampling=sampling,
        unknown=max(1, round(fraction * still_open)),
        step=resume.step,
        kind=Kind.RESAMPLE,
    )


def read_row(resume: decoding_pb2.DecodeState | None, sampling: Sampling, grid: Grid) -> Row:
    """Returns the start of a decode: a state handed in, or an image of which nothing is known.

    Args:
        resume: The state, if there is one.
        sampling: The knobs.
        grid: What the stage decodes.

    Raises:
        RequestError: FAILED_PRECONDITION: its tokens are of another codebook. INVALID_ARGUMENT:
            it is truncated, or contradicts its own number of steps.
    """
    if resume is None:
        return fresh_row(grid.side**2, sampling)
    tokens, known = _tokens_and_known(resume, grid)
    still_open = int((~known).sum())
    unknown = resume.unknown if resume.step else still_open
    if not still_open <= unknown <= tokens.size:
        raise invalid_field(
            "resume.unknown", expected=f"{still_open} to {tokens.size}", got=resume.unknown
        )
    if resume.step and resume.total:  # it may have been cut down
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


def pack_progress(
    progress: Progress, row: Row, grid: Grid, *, with_state: bool
) -> decoding_pb2.DecodeProgress:
    """Makes the message of a step.

    Args:
        progress: The decode after it.
        row: Its start.
        grid: What the stage decodes.
        with_state: Whether to hand out the state.
    """
    message = decoding_pb2.DecodeProgress(step=progress.step, total=progress.total)
    if with_state:
        message.state.CopyFrom(pack_state(progress, row, grid))
    return message


def pack_state(progress: Progress, row: Row, grid: Grid) -> decoding_pb2.DecodeState:
    """Makes the message from which a decode that took some steps goes on.

    Args:
        progress: The decode so far.
        row: Its start.
        grid: What the stage decodes.
    """
    settled = progress.known | (row.kind is Kind.RESAMPLE)  # an edit's tokens all count
    return decoding_pb2.DecodeState(
        tokens=pack_tokens(np.where(settled, progress.tokens, 0), grid),
        known=progress.known.astype(np.uint8).tobytes(),
        step=progress.step,
        unknown=row.unknown,
        total=progress.total,
    )


def pack_start(row: Row, grid: Grid) -> decoding_pb2.DecodeState:
    """Makes the message from which a decode that took no step yet goes on: its start."""
    start = Progress(tokens=row.tokens, known=row.known, step=row.step, total=row.total)
    return pack_state(start, row, grid)


def pack_tokens(tokens: np.ndarray, grid: Grid) -> tensor_pb2.TokenGrid:
    """Makes a message of an image's tokens, row by row."""
    return pack_grid(tokens.reshape(grid.side, grid.side), grid.codebook)
