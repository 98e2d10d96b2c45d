"""The state of many decodes: one row of a few KiB each, independent of the network.

The state of a row can be read after any step, and the decode resumed from it in any other slot,
batch or process.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from services.decoding.schedule import clamped_steps, masked_after_each_step
from services.sampling import MAX_STEPS, SEEDS, paper_default


class Kind(IntEnum):
    """Rule by which a step chooses the tokens that it writes.

    CONFIDENT reveals the most confident unknown tokens and keeps them (generation, inpainting).
    MASK_FREE_EDIT resamples a random share of the unknown tokens at every step.
    """

    CONFIDENT = 0
    MASK_FREE_EDIT = 1


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The sampling parameters of a decode.

    Attributes:
        steps: Requested steps, 1 to 256; clamped to the number of unknown tokens.
        guidance_scale: Guidance scale t of the last step.
        guidance_scale_start: Guidance scale of the first step; it grows linearly to that of the
            last.
        temperature: Temperature of sampling ids; 0 takes the likeliest id.
        choice_temperature: Scale tau of the Gumbel noise on confidences, which fades to 0 at the
            last step.
        top_k: Number of likeliest ids to sample from; 0 means all.
        seed: Seed of all noise, 0 to 2^64 - 1.
    """

    steps: int
    guidance_scale: float
    guidance_scale_start: float = paper_default("guidance_scale_start")
    temperature: float = paper_default("temperature")
    choice_temperature: float = paper_default("choice_temperature")
    top_k: int = 0
    seed: int = 0

    @property
    def rows(self) -> int:
        """Rows that a step computes: 2 with guidance, 1 without."""
        return 2 if self.guidance_scale or self.guidance_scale_start else 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """One decode, from its start or resumed.

    Attributes:
        tokens: Ids; ids of unknown tokens are ignored, except by MASK_FREE_EDIT.
        known: Tokens that no step changes.
        sampling: Sampling parameters.
        unknown: Tokens that were unknown before step 0; for MASK_FREE_EDIT, tokens that each step
            resamples.
        step: Steps already taken; more than 0 resumes a decode.
        kind: Rule by which a step chooses its tokens.
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
        if self.kind is Kind.MASK_FREE_EDIT:
            return self.sampling.steps
        return clamped_steps(self.unknown, self.sampling.steps)


class DecodeState(NamedTuple):
    """The state of many decodes as arrays, one row each. A row whose step is its total is idle.

    Attributes:
        tokens: Ids, [MASK] where unknown.
        known: Tokens that no further step changes.
        step: Steps taken.
        total: Steps of the whole decode.
        unknown: Tokens unknown at the start; for MASK_FREE_EDIT, tokens resampled by each step.
        schedule: Tokens still masked after each step.
        seed: High and low word of the 64-bit seed.
        guidance_scale: Guidance scale of the last step.
        guidance_scale_start: Guidance scale of the first step.
        temperature: Temperature of sampling ids.
        choice_temperature: Scale of the noise on confidences before it fades.
        top_k: Number of likeliest ids to sample from; 0 means all.
        kind: A `Kind`.
    """

    tokens: Int[Array, "S N"]
    known: Bool[Array, "S N"]
    step: Int[Array, " S"]
    total: Int[Array, " S"]
    unknown: Int[Array, " S"]
    schedule: Int[Array, "S M"]
    seed: UInt32[Array, "S 2"]
    guidance_scale: Float[Array, " S"]
    guidance_scale_start: Float[Array, " S"]
    temperature: Float[Array, " S"]
    choice_temperature: Float[Array, " S"]
    top_k: Int[Array, " S"]
    kind: Int[Array, " S"]


def fresh_row(tokens: int, sampling: Sampling) -> Row:
    """Returns the decode of an image of `tokens` tokens, none of them known."""
    return Row(
        tokens=np.zeros(tokens, np.int32),
        known=np.zeros(tokens, bool),
        sampling=sampling,
        unknown=tokens,
    )


def state_of(rows: list[Row], *, mask_id: int) -> DecodeState:
    """Converts decodes of equally many tokens to arrays of one row each, in numpy.

    Raises:
        ValueError: a row's step or unknown count contradicts its known tokens.
    """
    schedules = [_schedule(row) for row in rows]
    samplings = [row.sampling for row in rows]
    seeds = [divmod(sampling.seed % SEEDS, 2**32) for sampling in samplings]
    return DecodeState(
        tokens=np.stack([_masked(row, mask_id) for row in rows]),
        known=np.stack([row.known for row in rows]),
        step=np.array([row.step for row in rows], np.int32),
        total=np.array([row.total for row in rows], np.int32),
        unknown=np.array([row.unknown for row in rows], np.int32),
        schedule=np.stack(schedules),
        seed=np.array(seeds, np.uint32),
        guidance_scale=np.array([each.guidance_scale for each in samplings], np.float32),
        guidance_scale_start=np.array(
            [each.guidance_scale_start for each in samplings], np.float32
        ),
        temperature=np.array([each.temperature for each in samplings], np.float32),
        choice_temperature=np.array([each.choice_temperature for each in samplings], np.float32),
        top_k=np.array([each.top_k for each in samplings], np.int32),
        kind=np.array([row.kind for row in rows], np.int32),
    )


def idle_state(slots: int, tokens: int, *, mask_id: int) -> DecodeState:
    """Returns the state of `slots` idle slots."""
    idle = Row(
        tokens=np.zeros(tokens, np.int32),
        known=np.ones(tokens, bool),
        sampling=Sampling(steps=1, guidance_scale=0.0),
        unknown=0,
    )
    return state_of([idle] * slots, mask_id=mask_id)


def _masked(row: Row, mask_id: int) -> Int[np.ndarray, " N"]:
    if row.kind is Kind.MASK_FREE_EDIT:
        return np.asarray(row.tokens, np.int32)
    return np.where(row.known, row.tokens, mask_id).astype(np.int32)


def _schedule(row: Row) -> Int[np.ndarray, " M"]:
    total = row.total
    if total > MAX_STEPS or not 0 <= row.step <= total:
        raise ValueError(
            f"step {row.step} of {total} is impossible: expected 0 <= step <= total <= {MAX_STEPS}"
        )
    schedule = np.zeros(MAX_STEPS, np.int32)
    unknown_now = int((~row.known).sum())
    if row.kind is Kind.MASK_FREE_EDIT:
        if not 1 <= row.unknown <= unknown_now:
            raise ValueError(
                f"expected 1 to {unknown_now} tokens to resample a step, the number of unknown "
                f"tokens, got {row.unknown}"
            )
        return schedule
    counts = masked_after_each_step(row.unknown, row.sampling.steps)
    schedule[: len(counts)] = counts
    expected = row.unknown if row.step == 0 else counts[row.step - 1]
    if unknown_now != expected:
        raise ValueError(
            f"expected {expected} masked tokens after {row.step} of {total} steps from "
            f"{row.unknown} unknown tokens, got {unknown_now}; resume with the tokens and steps "
            f"that were handed out"
        )
    return schedule
