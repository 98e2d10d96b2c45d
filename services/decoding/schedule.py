"""The cosine schedule: the number of tokens that stay masked after each step of a decode.

Counts are computed once per request, on the host and in float64: in float32, cos(pi/3) times an
even number may fall just short of an integer, and one token would be revealed at another step.

Source: Muse, section 2.8; Chang et al. 2022, "MaskGIT", section 3.3; docs/method.md.
"""

import math


def clamped_steps(unknown: int, steps: int) -> int:
    """Returns the steps that a decode takes: at most one for each unknown token."""
    return min(unknown, steps)


def masked_after_each_step(unknown: int, steps: int) -> list[int]:
    """Returns the number of tokens still masked after each step, 0 after the last step.

    Every step reveals at least one token, and early steps reveal few.

    Args:
        unknown: Tokens of this sample that were unknown at the start.
        steps: Requested steps; clamped to `unknown`.

    Raises:
        ValueError: `unknown` is negative or `steps` is below 1.
    """
    if unknown < 0 or steps < 1:
        raise ValueError(
            f"a schedule needs unknown >= 0 and steps >= 1, got unknown={unknown} steps={steps}"
        )
    total = clamped_steps(unknown, steps)
    counts: list[int] = []
    masked = unknown
    for step in range(total - 1):
        cosine = math.cos(0.5 * math.pi * (step + 1) / total)
        masked = max(1, min(masked - 1, math.floor(unknown * cosine)))
        counts.append(masked)
    return [*counts, 0] if total else []


def unmasked_per_step(unknown: int, steps: int) -> list[int]:
    """Returns the number of tokens that each step reveals."""
    counts = masked_after_each_step(unknown, steps)
    return [before - after for before, after in zip([unknown, *counts], counts, strict=False)]
