"""Quotas by a clock of the test's own: rates flow back, open calls hold, refusals give back."""

import random
from collections.abc import Callable
from contextlib import suppress

import grpc
import pytest

from services.orchestrator.callers.policies import Policy
from services.orchestrator.callers.quotas import MINUTE_S, Accounts, CallQuotas
from services.runtime.wire.errors import RequestError, invalid_field


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def refusal_of(take: Callable[[], object]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        take()
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    return caught.value


def served(accounts: Accounts, policy: Policy, caller: str = "acme") -> None:
    with accounts.open_call(caller, policy) as call:
        call.take("requests_per_minute", 1)


def test_a_minute_of_requests_may_come_at_once_and_flows_back_evenly() -> None:
    clock = Clock()
    accounts, policy = Accounts(clock=clock), Policy(requests_per_minute=6)
    for _ in range(6):
        served(accounts, policy)
    refused = refusal_of(lambda: served(accounts, policy))
    assert refused.quota is not None
    assert (refused.quota.quota, refused.quota.limit) == ("requests_per_minute", 6)
    assert refused.retry_after_s == pytest.approx(10, abs=0.01)
    assert "the quota requests_per_minute of caller 'acme' is 6" in refused.message
    assert "try again in 10 s" in refused.message

    clock.now_s += refused.retry_after_s
    served(accounts, policy)
    refusal_of(lambda: served(accounts, policy))
    served(accounts, policy, "other")


def test_who_comes_back_when_it_was_told_to_finds_enough_whatever_was_taken_before() -> None:
    chance, clock = random.Random(4), Clock()
    accounts, refusals = Accounts(clock=clock), 0
    policy = Policy(bytes_per_minute=chance.randrange(1000, 10**9))
    limit = policy.bytes_per_minute
    assert limit is not None
    for _ in range(2000):
        amount, wait_s = chance.randrange(1, limit // 3), 0.0
        with accounts.open_call("acme", policy) as call:
            try:
                call.take("bytes_per_minute", amount)
            except RequestError as error:
                wait_s = error.retry_after_s or float("nan")
        if wait_s:
            refusals += 1
            assert 0 < wait_s <= MINUTE_S
            clock.now_s += wait_s
            with accounts.open_call("acme", policy) as call:
                call.take("bytes_per_minute", amount)
        clock.now_s += chance.uniform(0, 20)
    assert refusals > 100


def test_over_any_time_no_more_is_served_than_a_minute_at_once_and_what_flowed_back() -> None:
    chance, clock = random.Random(9), Clock()
    accounts, policy, count = Accounts(clock=clock), Policy(requests_per_minute=30), 0
    for _ in range(5000):
        clock.now_s += chance.expovariate(2.0)
        try:
            served(accounts, policy)
            count += 1
        except RequestError:
            pass
    minutes = (clock.now_s - 1000.0) / MINUTE_S
    assert 30 * minutes - 1 <= count <= 30 + 30 * minutes


@pytest.mark.parametrize("quota", ["requests_per_minute", "bytes_per_minute"])
def test_a_rate_of_0_allows_nothing_and_promises_nothing(quota: str) -> None:
    policy = Policy(**{quota: 0})
    call = Accounts().open_call("acme", policy)
    refused = refusal_of(lambda: call.take(quota, 1))  # type: ignore[arg-type]
    assert refused.message.endswith("it allows none")
    assert refused.retry_after_s is None


@pytest.mark.parametrize("quota", ["concurrent_streams", "steps_in_flight"])
def test_a_concurrency_of_0_allows_nothing_and_promises_nothing(quota: str) -> None:
    policy = Policy(**{quota: 0})
    call = Accounts().open_call("acme", policy)
    refused = refusal_of(lambda: call.hold(quota, 1))  # type: ignore[arg-type]
    assert refused.message.endswith("it allows none")
    assert refused.retry_after_s is None


def test_a_request_of_more_than_a_minute_is_told_to_ask_for_less() -> None:
    call = Accounts().open_call("acme", Policy(pictures_per_minute=3))
    refused = refusal_of(lambda: call.take("pictures_per_minute", 4))
    assert refused.message.endswith("is 3, and this call needs 4 of it: ask for less")
    assert refused.retry_after_s is None
    call.take("pictures_per_minute", 3)


def test_what_open_calls_hold_is_free_again_at_their_end_however_they_end() -> None:
    accounts, policy = Accounts(), Policy(steps_in_flight=10)
    with suppress(KeyError), accounts.open_call("acme", policy) as call:
        call.hold("steps_in_flight", 6)
        with accounts.open_call("acme", policy) as second:
            refused = refusal_of(lambda: second.hold("steps_in_flight", 5))
            assert refused.retry_after_s == 1.0
            second.hold("steps_in_flight", 4)
        raise KeyError
    with accounts.open_call("acme", policy) as call:
        call.hold("steps_in_flight", 10)


@pytest.mark.parametrize(
    ("error", "work", "kept"),
    [
        (invalid_field("prompt", expected="a text", got="none"), False, 0),
        (invalid_field("inpaint.image", expected="a picture", got="none"), True, 4),
        (RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "late"), False, 4),
        (KeyError(), False, 4),
        (None, False, 4),
    ],
)
def test_only_a_refusal_before_the_work_gives_back_what_was_taken(
    error: Exception | None, work: bool, kept: int
) -> None:
    accounts, policy = Accounts(clock=Clock()), Policy(pictures_per_minute=10)

    def end(call: CallQuotas) -> None:
        call.take("pictures_per_minute", 4)
        if work:
            call.begin_work()
        if error is not None:
            raise error

    with suppress(RequestError, KeyError), accounts.open_call("acme", policy) as call:
        end(call)
    after = accounts.open_call("acme", policy)
    after.take("pictures_per_minute", 10 - kept)
    refusal_of(lambda: after.take("pictures_per_minute", 1))


def test_callers_are_forgotten_after_an_idle_minute_unless_a_call_of_theirs_is_open() -> None:
    clock = Clock()
    accounts, policy = Accounts(clock=clock), Policy(requests_per_minute=5)
    with accounts.open_call("busy", policy) as busy:
        busy.hold("concurrent_streams", 1)
        for number in range(1000):
            served(accounts, policy, f"caller {number}")
        assert len(accounts) == 1001
        for number in range(2000):
            clock.now_s += MINUTE_S
            served(accounts, policy, f"late {number}")
        assert len(accounts) < 5
        with accounts.open_call("busy", policy) as second:
            second.hold("concurrent_streams", 1)
            refusal_of(lambda: second.check_share(2))
    assert accounts.open_calls == 0


def test_no_number_of_callers_within_a_minute_takes_more_than_a_bounded_memory() -> None:
    accounts = Accounts(clock=Clock(), max_callers=10)
    for number in range(1000):
        served(accounts, Policy(requests_per_minute=5), str(number))
        assert len(accounts) <= 11


def test_a_lone_caller_may_open_half_of_all_calls_and_another_still_finds_room() -> None:
    accounts, policy, calls = Accounts(), Policy(), 8

    def opened(caller: str) -> CallQuotas:
        call = accounts.open_call(caller, policy)
        call.__enter__()
        call.hold("concurrent_streams", 1)
        try:
            call.check_share(calls)
        except RequestError as error:
            call.__exit__(None, error, None)
            raise
        return call

    for _ in range(4):
        opened("flood")
    for _ in range(10):
        refusal_of(lambda: opened("flood"))
    opened("honest")
    opened("honest")
    assert accounts.open_calls == 6
