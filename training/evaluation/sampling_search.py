"""Searches the sampling parameters with which a checkpoint's pictures come out best.

One parameter after the other: each value is tried on the same prompts and seeds with the other
parameters as found so far, and the best is kept. Pictures that are measured afterwards must have
prompts of another seed: the best of several values is partly luck with these.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from training.evaluation.detector import Detector
from training.evaluation.scenes import PromptCase, score_all
from training.evaluation.shares import Share, share_of

GROUPS = ("single", "pair by relation", "pair by place", "count")
CANDIDATES: Mapping[str, Sequence[float]] = {
    "guidance_scale": (0.75, 1.5, 2.5, 4.0),
    "temperature": (0.4, 0.55, 0.7, 0.85),
    "choice_temperature": (1.0, 2.0, 4.5),
}
Generate = Callable[
    [Mapping[str, float], Sequence[PromptCase]], Iterable[UInt8[np.ndarray, "h w 3"]]
]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of some sampling parameters.

    Attributes:
        parameters: By name.
        all_right: Share of the pictures.
        objects: Share with exactly the objects asked for.
    """

    parameters: Mapping[str, float]
    all_right: Share
    objects: Share

    @property
    def merit(self) -> float:
        """What is compared: a scene all right counts twice, the right objects alone once."""
        return self.all_right.value + self.objects.value


def search(
    start: Mapping[str, float],
    cases: Sequence[PromptCase],
    generate: Generate,
    detector: Detector,
    candidates: Mapping[str, Sequence[float]] = CANDIDATES,
) -> Iterator[Trial]:
    """Yields every trial as it ends; the best of them has the parameters to take.

    Args:
        start: Parameters to begin with, one for each of `candidates`.
        cases: What to generate with each.
        generate: Generates the cases' pictures with some parameters.
        detector: Reads the pictures.
        candidates: Values by parameter, in the order in which they are tried.

    Raises:
        ValueError: there are no cases, or a parameter has no start.
    """
    if not cases:
        raise ValueError("expected prompts to generate, got none")
    if missing := sorted(candidates.keys() - start.keys()):
        raise ValueError(f"expected a start for every parameter, got none for {', '.join(missing)}")

    def trial(parameters: Mapping[str, float]) -> Trial:
        scores = [one.score for one in score_all(cases, generate(parameters, cases), detector)]
        return Trial(
            parameters=parameters,
            all_right=share_of(score.all for score in scores),
            objects=share_of(score.objects for score in scores),
        )

    best = trial(dict(start))
    yield best
    for name, values in candidates.items():
        tried = [best]
        for value in values:
            if value != best.parameters[name]:
                tried.append(trial({**best.parameters, name: value}))
                yield tried[-1]
        best = max(tried, key=lambda one: one.merit)
