"""Whose turn it is among those who wait, and who finds room."""

import random
from collections import Counter

import pytest

from services.runtime.scheduling.fair_queue import WaitingLine
from services.runtime.wire.caller import Claim, Priority


def everybody(line: WaitingLine[str]) -> list[str]:
    """Takes all out, in the order of their turns."""
    names = []
    while (name := line.next()) is not None:
        names.append(name)
    return names


def test_one_caller_is_served_first_come_first_served_whatever_it_asks_for() -> None:
    line: WaitingLine[str] = WaitingLine(100)
    for name, cost in (("a", 90), ("b", 1), ("c", 40)):
        line.join(name, Claim(), cost)

    assert everybody(line) == ["a", "b", "c"]


def test_callers_take_turns_by_what_their_requests_cost() -> None:
    line: WaitingLine[str] = WaitingLine(100)
    for number in range(4):
        line.join(f"long {number}", Claim(caller="long"), 8)
    for number in range(6):
        line.join(f"short {number}", Claim(caller="short"), 4)

    assert everybody(line) == [
        "long 0",
        "short 0",
        "short 1",
        "long 1",
        "short 2",
        "short 3",
        "long 2",
        "short 4",
        "short 5",
        "long 3",
    ]


def test_a_caller_who_comes_late_has_no_claim_on_the_past_and_does_not_wait_for_the_flood() -> None:
    line: WaitingLine[str] = WaitingLine(100)
    for number in range(20):
        line.join(f"flood {number}", Claim(caller="flood"), 10)
    assert [line.next() for _ in range(5)] == [f"flood {number}" for number in range(5)]
    for number in range(3):
        line.join(f"late {number}", Claim(caller="late"), 10)

    assert [line.next() for _ in range(6)] == [
        "late 0",
        "flood 5",
        "late 1",
        "flood 6",
        "late 2",
        "flood 7",
    ]


def test_of_two_callers_who_never_stop_each_gets_half_of_the_work_whatever_their_requests() -> None:
    chance, line, given = random.Random(1), WaitingLine[tuple[str, int]](100), Counter[str]()
    for _ in range(4000):
        for caller, costs in (("long", (30, 60)), ("short", (1, 9))):
            while line.room_for(Claim(caller=caller)):
                cost = chance.randint(*costs)
                line.join((caller, cost), Claim(caller=caller), cost)
        turn = line.next()
        assert turn is not None
        given[turn[0]] += turn[1]

    assert given["long"] / given.total() == pytest.approx(0.5, abs=0.01)


def test_batch_waits_for_all_that_is_interactive() -> None:
    line: WaitingLine[str] = WaitingLine(100)
    for number in range(2):
        line.join(f"batch {number}", Claim(priority=Priority.BATCH, caller="a"), 1)
        line.join(f"interactive {number}", Claim(caller="a"), 50)

    assert everybody(line) == ["interactive 0", "interactive 1", "batch 0", "batch 1"]


def test_a_caller_may_hold_as_many_places_as_it_leaves_free() -> None:
    line: WaitingLine[int] = WaitingLine(12)
    claims = [Claim(caller="a"), Claim(caller="b"), Claim(priority=Priority.BATCH, caller="a")]
    held = []
    for claim in claims:
        count = 0
        while line.room_for(claim):
            line.join(count, claim, 1)
            count += 1
        held.append(count)

    assert held == [6, 3, 2]
    assert WaitingLine[int](1).room_for(Claim())


def test_who_gives_up_leaves_its_place_and_its_caller_owes_nothing_for_it() -> None:
    line: WaitingLine[str] = WaitingLine(100)
    line.join("a0", Claim(caller="a"), 10)
    line.join("a1", Claim(caller="a"), 10)
    line.join("b0", Claim(caller="b"), 10)
    line.join("b1", Claim(caller="b"), 10)
    assert line.leave("a1")
    assert not line.leave("a1")
    line.join("a2", Claim(caller="a"), 10)

    assert everybody(line) == ["a0", "b0", "b1", "a2"]


def test_who_stands_around_a_newcomer_is_who_is_seated_before_and_after_it() -> None:
    chance = random.Random(7)
    for _ in range(200):
        line: WaitingLine[str] = WaitingLine(1000)
        claims = [Claim(caller=name, priority=each) for name in "abc" for each in Priority]
        for number in range(chance.randrange(30)):
            line.join(str(number), chance.choice(claims), chance.randint(1, 20))
            if chance.random() < 0.3:
                line.next()
        claim = chance.choice(claims)
        ahead, behind = line.around(claim)
        line.join("newcomer", claim, 5)

        assert everybody(line) == [*ahead, "newcomer", *behind]


def test_nothing_is_kept_of_callers_who_are_gone() -> None:
    line: WaitingLine[int] = WaitingLine(100)
    for number in range(1000):
        line.join(number, Claim(caller=str(number)), 1)
        line.join(-number, Claim(caller="always"), 1)
        line.next()
        if number % 2:
            line.next()

    assert len(line._promised) <= len(line) + 3
    assert set(line._held) == {place.claim for place in line._line}
