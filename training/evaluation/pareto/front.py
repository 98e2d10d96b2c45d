"""Points of a sweep and their Pareto front.

Source: Muse, section 3.2 and figure 8: sampling parameters are swept, and the Pareto-efficient ones
cannot improve FID without a worse CLIP score.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

Parameters = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Point:
    """What came of one choice of sampling parameters.

    Attributes:
        parameters: By name.
        distance: From the reference pictures; the smaller the better.
        text_score: Of pictures and prompts; the greater the better.
        pictures: Pictures that both are of.
    """

    parameters: Parameters
    distance: float
    text_score: float
    pictures: int


def combinations(values: Mapping[str, Sequence[float]]) -> Iterator[Parameters]:
    """Yields every choice of one value for each parameter; the last parameter changes fastest."""
    for chosen in product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other point dominates, the smallest distance first."""
    return sorted(
        (point for point in points if not any(_dominates(each, point) for each in points)),
        key=lambda point: (point.distance, -point.text_score),
    )


def _dominates(point: Point, other: Point) -> bool:
    no_worse = point.distance <= other.distance and point.text_score >= other.text_score
    return no_worse and (point.distance, point.text_score) != (other.distance, other.text_score)
