"""The state of many decodes: one row each, a few KiB, no part of it a network's.

A row can be read back after any step, and goes on from there in any other slot, batch or process.

Source: DESIGN 5.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from services.decoding.schedule import (
    clamped_steps,
    masked_after_each_step,
)
from services.runtime.limits import MAX_STEPS

SEED_LIMIT = 2**64


class Kind(IntEnum):
    """How a decode chooses the tokens a step writes.

    CONFIDENT reveals the most confident unknown tokens and keeps them (generation, inpainting).
    RESAMPLE draws a random share of the open tokens anew at every step (mask-free editing).
    """

    CONFIDENT = 0
    RESAMPLE = 1


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The knobs of a decode.

    Attributes:
        steps: Steps asked for, 1 to 256; clamped to the number of unknown tokens.
        guidance: Guidance scale t of the last step.
        first_guidance: Scale of the first step; it grows linearly from here.
        temperature: Of sampling ids; 0 takes the likeliest.
        confidence_noise: Scale tau of the Gumbel noise on confidences, fading to 0 at the end.
        top_k: Ids sampled from; 0 means all.
        seed: 0 to 2^64 - 1.
    """

    steps: int
    guidance: float
    first_guidance: float = 0.0
    temperature: float = 1.0
    confidence_noise: float = 4.5
    top_k: int = 0
    seed: int = 0

    @property
    def rows(self) -> int:
        """Rows that a step computes: both branches of guidance, or one where it is off."""
        return 2 if self.guidance or self.first_guidance else 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """One decode, at its start or resumed.

    Attributes:
        tokens: Ids; what stands at unknown places does not matter.
        known: Tokens that must stay as they are.
        sampling: The knobs.
        step: Steps already taken; more than 0 resumes.
        unknown: Tokens that were unknown before step 0 (or, of RESAMPLE, that each step draws).
        kind: How a step chooses its tokens.
    """

    tokens: Int[np.ndarray, " N"]
    known: Bool[np.ndarray, " N"]
    sampling: Sampling
    unknown: int
    step: int = 0
    kind: Kind = field(default=Kind.CONFIDENT)

    @property
    def total(self) -> int:
        """Steps of the whole decode."""
        if self.kind is Kind.RESAMPLE:
            return self.sampling.steps
        return clamped_steps(self.unknown, self.sampling.steps)


class DecodeState(NamedTuple):
    """Rows of decodes, as arrays. A row whose step equals its total is at rest.

    Attributes:
        tokens: Ids, [MASK] where unknown.
        known: Tokens that no step changes any more.
        step: Steps taken.
        total: Steps of the whole decode.
        unknown: Tokens unknown at the start; of RESAMPLE, tokens drawn by each step.
        schedule: Tokens still masked after each step.
        seed: High and low word of the 64-bit seed.
        guidance: Scale of the last step.
        first_guidance: Scale of the first step.
        temperature: Of sampling ids.
        confidence_noise: Scale of the noise on confidences at the first step.
        top_k: Ids sampled from; 0 means all.
        kind: A `Kind`.
    """

    tokens: Int[Array, "S N"]
    known: Bool[Array, "S N"]
    step: Int[Array, " S"]
    total: Int[Array, " S"]
    unknown: Int[Array, " S"]
    schedule: Int[Array, "S M"]
    seed: UInt32[Array, "S 2"]
    guidance: Float[Array, " S"]
    first_guidance: Float[Array, " S"]
    temperature: Float[Array, " S"]
    confidence_noise: Float[Array, " S"]
    top_k: Int[Array, " S"]
    kind: Int[Array, " S"]


def fresh_row(tokens: int, sampling: Sampling) -> Row:
    """Returns the decode of a whole image of `tokens` tokens, none of them known."""
    return Row(
        tokens=np.zeros(tokens, np.int32),
        known=np.zeros(tokens, bool),
        sampling=sampling,
        unknown=tokens,
    )


def state_of(rows: list[Row], *, mask_id: int) -> DecodeState:
    """Lays rows out as arrays, in numpy.

    Args:
        rows: Decodes of grids of one size; at least one.
        mask_id: Written wherever a token is unknown.

    Raises:
        ValueError: a row's step or unknown count contradicts its known tokens.
    """
    tables = [_schedule(row) for row in rows]
    knobs = [row.sampling for row in rows]
    words = [divmod(knob.seed % SEED_LIMIT, 2**32) for knob in knobs]
    return DecodeState(
        tokens=np.stack([_masked(row, mask_id) for row in rows]),
        known=np.stack([row.known for row in rows]),
        step=np.array([row.step for row in rows], np.int32),
        total=np.array([row.total for row in rows], np.int32),
        unknown=np.array([row.unknown for row in rows], np.int32),
        schedule=np.stack(tables),
        seed=np.array(words, np.uint32),
        guidance=np.array([knob.guidance for knob in knobs], np.float32),
        first_guidance=np.array([knob.first_guidance for knob in knobs], np.float32),
        temperature=np.array([knob.temperature for knob in knobs], np.float32),
        confidence_noise=np.array([knob.confidence_noise for knob in knobs], np.float32),
        top_k=np.array([knob.top_k for knob in knobs], np.int32),
        kind=np.array([row.kind for row in rows], np.int32),
    )


def resting_state(slots: int, tokens: int, *, mask_id: int) -> DecodeState:
    """Returns `slots` rows that have nothing to do."""
    idle = Row(
        tokens=np.zeros(tokens, np.int32),
        known=np.ones(tokens, bool),
        sampling=Sampling(steps=1, guidance=0.0),
        unknown=0,
    )
    return state_of([idle] * slots, mask_id=mask_id)


def _masked(row: Row, mask_id: int) -> Int[np.ndarray, " N"]:
    if row.kind is Kind.RESAMPLE:
        return np.asarray(row.tokens, np.int32)
    return np.where(row.known, row.tokens, mask_id).astype(np.int32)


def _schedule(row: Row) -> Int[np.ndarray, " M"]:
    total = row.total
    if total > MAX_STEPS or not 0 <= row.step <= total:
        raise ValueError(
            f"step {row.step} of {total} is impossible: expected 0 <= step <= total <= {MAX_STEPS}"
        )
    table = np.zeros(MAX_STEPS, np.int32)
    still_open = int((~row.known).sum())
    if row.kind is Kind.RESAMPLE:
        if not 1 <= row.unknown <= still_open:
            raise ValueError(
                f"{row.unknown} tokens a step cannot be drawn from {still_open} open ones"
            )
        return table
    counts = masked_after_each_step(row.unknown, row.sampling.steps)
    table[: len(counts)] = counts
    expected = row.unknown if row.step == 0 else counts[row.step - 1]
    if still_open != expected:
        raise ValueError(
            f"after {row.step} of {total} steps from {row.unknown} unknown tokens, {expected} "
            f"are masked: got {still_open}; resume with the tokens and steps that were handed out"
        )
    return table
