"""What a mix asks of the stages."""

import pytest

from services.presets import preset
from tools.planning.demand import demand_of, read_seconds

TINY, PAPER = preset("tiny"), preset("muse-3b")


def test_without_a_mix_everybody_takes_the_servers_defaults() -> None:
    (work,) = demand_of([], PAPER, rate=5).works.values()
    assert work.amounts == {
        "orchestrator": 1,
        "text_encoder": 1,
        "base": 24,
        "superres": 8,
        "tokenizer": 1,
    }
    assert work.guided


def test_a_mix_is_written_as_for_the_bench_and_steps_are_no_more_than_tokens() -> None:
    demand = demand_of(
        ["steps=99,weight=3", "steps=8,guidance_scale=0", "negative=1"], TINY, rate=5
    )
    works = list(demand.works.values())
    assert [work.amounts["base"] for work in works] == [16, 8, 16]
    assert [work.amounts["text_encoder"] for work in works] == [1, 1, 2]
    assert [work.guided for work in works] == [True, False, True]
    assert list(demand.shares.values()) == pytest.approx([0.6, 0.2, 0.2])


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        (
            "stepz=8",
            "mix: kind: expected some of steps, .*; write it such as steps=8,guidance_scale=0",
        ),
        ("steps=0", "mix: steps: expected 1 to 256, got 0"),
        ("superres_steps=300", "mix: superres_steps: expected 1 to 256, got 300"),
        ("guidance_scale=-1", "mix: guidance_scale: expected 0 to 100, got -1"),
        ("negative=2", "mix: negative: expected 0 or 1, got 2"),
        ("weight=-1", "expected a weight above 0, got -1"),
    ],
)
def test_a_mix_that_servers_would_refuse_is_refused(mix: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        demand_of([mix], PAPER, rate=5)


def test_a_kind_that_is_named_twice_is_refused_rather_than_counted_once() -> None:
    with pytest.raises(ValueError, match="mix: 'steps=8' is there twice: name it once, with twice"):
        demand_of(["steps=8", "steps=4", "steps=8"], PAPER, rate=5)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_is_above_zero(rate: float) -> None:
    with pytest.raises(ValueError, match="images_per_second: expected a number above 0, got"):
        demand_of([], PAPER, rate=rate)


def test_times_have_units() -> None:
    written = ("2", "2s", "500ms", "1.5m", "2h", "30d")
    assert [read_seconds("p99", each) for each in written] == [2, 2, 0.5, 90, 7200, 2_592_000]


@pytest.mark.parametrize("text", ["", "two", "0", "-1s", "nan", "inf", "2 weeks"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="p99: expected a time above 0, such as 2s or 500ms, got"):
        read_seconds("p99", text)
