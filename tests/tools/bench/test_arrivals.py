"""Arrivals: the same for a seed, Poisson in time, mixed by weight; and how kinds are written."""

import statistics
from collections import Counter
from itertools import pairwise

import pytest

from tools.bench.arrivals import Kind, parse_kind, poisson_arrivals


def test_a_seed_gives_the_same_arrivals_and_another_gives_others() -> None:
    first, second, other = (
        poisson_arrivals([Kind()], rate=3, seconds=20, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_gaps_are_exponential_with_the_mean_of_the_rate() -> None:
    times = [each.at_s for each in poisson_arrivals([Kind()], rate=5, seconds=2000, seed=0)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times == sorted(times)
    assert times[-1] < 2000
    assert statistics.mean(gaps) == pytest.approx(0.2, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.2, rel=0.05)  # as long as the mean


def test_the_mix_has_the_shares_of_the_weights() -> None:
    kinds = [Kind(steps=8, weight=3), Kind(steps=48, weight=1)]
    count = Counter(
        each.kind.name for each in poisson_arrivals(kinds, rate=10, seconds=1000, seed=0)
    )
    assert count["steps=8"] / count.total() == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("", Kind(), "default"),
        (
            "steps=8,guidance_scale=0,weight=3",
            Kind(steps=8, guidance_scale=0, weight=3),
            "steps=8 guidance_scale=0",
        ),
        (
            "superres_steps=2,negative=1",
            Kind(superres_steps=2, negative=1),
            "superres_steps=2 negative",
        ),
    ],
)
def test_a_kind_is_read_as_it_is_written(text: str, kind: Kind, name: str) -> None:
    assert parse_kind(text) == kind
    assert kind.name == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stepz=8", "expected some of steps, .*got 'stepz=8'"),
        ("steps=many", "expected steps to be a number .*got 'many'"),
        ("weight=0", "expected a weight above 0, got 0"),
        ("weight=nan", "expected a weight above 0, got nan"),
    ],
)
def test_a_wrong_kind_says_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_kind(text)


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"seconds": -1.0}, {"rate": float("nan")}])
def test_a_rate_or_a_time_of_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a number above 0"):
        poisson_arrivals([Kind()], **{"rate": 1.0, "seconds": 1.0, **wrong}, seed=0)
