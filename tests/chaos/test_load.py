"""Callers try again as docs/clients.md says, cancel at random, and notice every wrong picture."""

import asyncio
import time
from collections import Counter
from typing import Any

import grpc
import pytest
from muse_client import MuseError

from tests.chaos import load as load_module
from tests.chaos.load import Load
from tests.chaos.pictures import Quiet, mixed_requests, quiet_run
from tests.chaos.records import OK
from tests.waiting import until

RIGHT = {"image 0": "aa"}


class FakeRequest:
    """A request that fails as listed, then gives its pictures, after some seconds."""

    name = "fake/1"

    def __init__(self, *failures: Exception, gives: dict[str, str] = RIGHT, takes_s: float = 0):
        self.failures, self.gives, self.takes_s = list(failures), gives, takes_s
        self.cancelled = 0

    async def send(self, client: object) -> dict[str, str]:
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failures:
            raise self.failures.pop(0)
        return self.gives


def error(code: grpc.StatusCode, retry_after_s: float | None = None) -> MuseError:
    return MuseError(code, "away", retry_after_s=retry_after_s)


def load_of(request: Any, took_s: float = 1.0) -> Load:
    client: Any = None
    quiet = {request.name: Quiet(RIGHT, took_s)}
    return Load(client, [request], quiet, seed=0, begun_s=time.monotonic())


async def one(sending: Any) -> None:
    """Lets one request begin, and waits for its end."""
    ending = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, ending.set)
    await sending(0.001, ending)


async def test_requests_come_at_their_rate_and_good_answers_are_only_counted() -> None:
    load = load_of(FakeRequest())
    begun_s, ending = time.monotonic(), asyncio.Event()
    sending = asyncio.create_task(load.send_steadily(50, ending))
    await until(lambda: load.answered >= 10)
    ending.set()
    await sending
    assert load.answered <= 50 * (time.monotonic() - begun_s) + 1
    assert load.odd == []


async def test_what_may_be_retried_is_and_all_attempts_are_kept() -> None:
    away = error(grpc.StatusCode.UNAVAILABLE)
    full = error(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.01)
    load = load_of(FakeRequest(away, full))
    await one(load.send_steadily)
    (answer,) = load.odd
    codes = [attempt.code for attempt in answer.attempts]
    assert codes == ["UNAVAILABLE", "RESOURCE_EXHAUSTED", OK]
    assert answer.attempts[1].begin_s - answer.attempts[0].end_s >= 0.2
    assert (load.answered, answer.digests) == (1, RIGHT)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (error(grpc.StatusCode.INTERNAL), "INTERNAL"),
        (error(grpc.StatusCode.RESOURCE_EXHAUSTED), "RESOURCE_EXHAUSTED"),
        (KeyError("image"), "KeyError"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
async def test_what_may_not_be_retried_is_kept_as_it_is(failure: Exception, code: str) -> None:
    load = load_of(FakeRequest(failure))
    await one(load.send_steadily)
    (answer,) = load.odd
    assert [attempt.code for attempt in answer.attempts] == [code]
    assert load.answered == 0


async def test_a_caller_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "GIVE_UP_S", 0.3)
    load = load_of(FakeRequest(*[error(grpc.StatusCode.UNAVAILABLE)] * 9))
    await one(load.send_steadily)
    (answer,) = load.odd
    assert 2 <= len(answer.attempts) < 9
    assert answer.attempts[-1].code == "UNAVAILABLE"


async def test_a_wrong_picture_is_kept() -> None:
    load = load_of(FakeRequest(gives={"image 0": "bb"}))
    await one(load.send_steadily)
    (answer,) = load.odd
    assert answer.digests == {"image 0": "bb"}


async def test_cancels_come_at_any_time_of_a_request() -> None:
    request = FakeRequest(takes_s=0.1)
    load = load_of(request, took_s=0.1)
    ending = asyncio.Event()
    cancelling = asyncio.create_task(load.cancel_steadily(50, ending))
    # Some end before their time, and some are cancelled before they begin.
    await until(lambda: load.answered > 0 and load.cancelled >= request.cancelled > 5)
    ending.set()
    await cancelling
    assert load.odd == []


async def test_a_quiet_run_that_gives_two_answers_is_an_error() -> None:
    class Changing(FakeRequest):
        async def send(self, client: object) -> dict[str, str]:
            self.gives = {"image 0": str(time.monotonic_ns())}
            return self.gives

    requests: Any = [Changing()]
    client: Any = None
    with pytest.raises(RuntimeError, match="fake/1: two quiet calls gave"):
        await quiet_run(client, requests)


def test_the_requests_are_of_every_kind_with_a_few_seeds() -> None:
    requests = mixed_requests()
    kinds = Counter(request.name.split("/")[0] for request in requests)
    assert kinds == {"generate": 3, "previews": 3, "inpaint": 3, "outpaint": 3, "edit": 3}
    assert len({request.name for request in requests}) == len(requests)
