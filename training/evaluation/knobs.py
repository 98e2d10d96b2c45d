"""Looks for the knobs of sampling with which a checkpoint's pictures come out best.

One knob after the other: each value on the same prompts and seeds, the others as found so far, the
best is kept. Pictures that are measured afterwards must have prompts of another seed: the best of
several values is partly luck with these.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.detector import Detector
from training.evaluation.scenes import Asked, Painter, Verdict, judge_all

GROUPS = ("single", "pair", "pair by place", "count")  # "several" is beyond the demo's checkpoint
CANDIDATES: Mapping[str, Sequence[float]] = {
    "guidance": (0.75, 1.5, 2.5, 4.0),
    "temperature": (0.4, 0.55, 0.7, 0.85),
    "confidence_noise": (1.0, 2.0, 4.5),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of some knobs.

    Attributes:
        knobs: By name.
        all_right: Share of the pictures.
        objects: Share with exactly the objects asked for.
    """

    knobs: Mapping[str, float]
    all_right: float
    objects: float

    @property
    def score(self) -> float:
        """What is compared: a scene all right counts twice, the right objects alone once."""
        return self.all_right + self.objects


def search(
    start: Mapping[str, float],
    questions: Sequence[Asked],
    painter: Callable[[Mapping[str, float]], Painter],
    detector: Detector,
    candidates: Mapping[str, Sequence[float]] = CANDIDATES,
) -> Iterator[Trial]:
    """Yields every trial as it ends; the best of them has the knobs to take.

    Args:
        start: Knobs to begin with, one for each of `candidates`.
        questions: What to have painted with each.
        painter: Makes a painter that uses some knobs.
        detector: Reads the pictures.
        candidates: Values by knob, in the order in which they are tried.

    Raises:
        ValueError: there are no questions, or a knob has no start.
    """
    if not questions:
        raise ValueError("expected questions to have painted, got none")
    if missing := sorted(candidates.keys() - start.keys()):
        raise ValueError(f"expected a start for every knob, got none for {', '.join(missing)}")

    def trial(knobs: Mapping[str, float]) -> Trial:
        verdicts = [one.verdict for one in judge_all(questions, painter(knobs), detector)]
        return Trial(
            knobs=knobs, all_right=_share(verdicts, "all"), objects=_share(verdicts, "objects")
        )

    best = trial(dict(start))
    yield best
    for name, values in candidates.items():
        tried = [best]
        for value in values:
            if value != best.knobs[name]:
                tried.append(trial({**best.knobs, name: value}))
                yield tried[-1]
        best = max(tried, key=lambda one: one.score)


def _share(verdicts: Sequence[Verdict], question: str) -> float:
    return float(np.mean([getattr(verdict, question) for verdict in verdicts]))
