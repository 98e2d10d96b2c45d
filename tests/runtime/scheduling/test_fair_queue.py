"""Order and admission of the fair queue."""

import random
from collections import Counter

import pytest

from services.runtime.scheduling.fair_queue import FairQueue
from services.runtime.wire.caller import Caller, Priority


def drained(queue: FairQueue[str]) -> list[str]:
    """Pops all items."""
    names = []
    while (name := queue.pop()) is not None:
        names.append(name)
    return names


def test_one_caller_is_served_first_come_first_served_whatever_it_asks_for() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for name, cost in (("a", 90), ("b", 1), ("c", 40)):
        queue.push(name, Caller(), cost)

    assert drained(queue) == ["a", "b", "c"]


def test_callers_share_the_slots_by_the_cost_of_their_requests() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for number in range(4):
        queue.push(f"long {number}", Caller(id="long"), 8)
    for number in range(6):
        queue.push(f"short {number}", Caller(id="short"), 4)

    assert drained(queue) == [
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


def test_a_late_caller_gets_no_credit_for_the_past_and_does_not_wait_for_the_flood() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for number in range(20):
        queue.push(f"flood {number}", Caller(id="flood"), 10)
    assert [queue.pop() for _ in range(5)] == [f"flood {number}" for number in range(5)]
    for number in range(3):
        queue.push(f"late {number}", Caller(id="late"), 10)

    assert [queue.pop() for _ in range(6)] == [
        "late 0",
        "flood 5",
        "late 1",
        "flood 6",
        "late 2",
        "flood 7",
    ]


def test_two_busy_callers_each_get_half_of_the_work_whatever_the_cost_of_their_requests() -> None:
    chance, queue, served = random.Random(1), FairQueue[tuple[str, int]](100), Counter[str]()
    for _ in range(4000):
        for caller, costs in (("long", (30, 60)), ("short", (1, 9))):
            while queue.has_room(Caller(id=caller)):
                cost = chance.randint(*costs)
                queue.push((caller, cost), Caller(id=caller), cost)
        item = queue.pop()
        assert item is not None
        served[item[0]] += item[1]

    assert served["long"] / served.total() == pytest.approx(0.5, abs=0.01)


def test_batch_requests_wait_for_all_interactive_ones() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for number in range(2):
        queue.push(f"batch {number}", Caller(priority=Priority.BATCH, id="a"), 1)
        queue.push(f"interactive {number}", Caller(id="a"), 50)

    assert drained(queue) == ["interactive 0", "interactive 1", "batch 0", "batch 1"]


def test_a_caller_may_hold_as_many_places_as_it_leaves_free() -> None:
    queue: FairQueue[int] = FairQueue(12)
    callers = [Caller(id="a"), Caller(id="b"), Caller(priority=Priority.BATCH, id="a")]
    held = []
    for caller in callers:
        count = 0
        while queue.has_room(caller):
            queue.push(count, caller, 1)
            count += 1
        held.append(count)

    assert held == [6, 3, 2]
    assert FairQueue[int](1).has_room(Caller())


def test_a_removed_item_costs_its_caller_nothing() -> None:
    queue: FairQueue[str] = FairQueue(100)
    queue.push("a0", Caller(id="a"), 10)
    queue.push("a1", Caller(id="a"), 10)
    queue.push("b0", Caller(id="b"), 10)
    queue.push("b1", Caller(id="b"), 10)
    assert queue.remove("a1")
    assert not queue.remove("a1")
    queue.push("a2", Caller(id="a"), 10)

    assert drained(queue) == ["a0", "b0", "b1", "a2"]


def test_split_returns_what_is_popped_before_and_after_a_new_item() -> None:
    chance = random.Random(7)
    for _ in range(200):
        queue: FairQueue[str] = FairQueue(1000)
        callers = [Caller(id=name, priority=each) for name in "abc" for each in Priority]
        for number in range(chance.randrange(30)):
            queue.push(str(number), chance.choice(callers), chance.randint(1, 20))
            if chance.random() < 0.3:
                queue.pop()
        caller = chance.choice(callers)
        ahead, behind = queue.split(caller)
        queue.push("newcomer", caller, 5)

        assert drained(queue) == [*ahead, "newcomer", *behind]


def test_the_queue_forgets_callers_without_items() -> None:
    queue: FairQueue[int] = FairQueue(100)
    for number in range(1000):
        queue.push(number, Caller(id=str(number)), 1)
        queue.push(-number, Caller(id="always"), 1)
        queue.pop()
        if number % 2:
            queue.pop()

    assert len(queue._finish_time) <= len(queue) + 3
    assert set(queue._counts) == {entry.caller for entry in queue._entries}
