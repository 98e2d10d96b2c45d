"""Quotas of callers, counted in the memory of one orchestrator.

A rate is a token bucket that holds a minute's worth: what was taken flows back evenly. Nothing runs
in the background, and a caller is forgotten after an idle minute, when all buckets are full again.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from services.orchestrator.callers.policies import Concurrency, Policy, Rate
from services.runtime.wire.errors import QuotaViolation, RequestError, resource_exhausted

MINUTE_S = 60.0
RETRY_AFTER_S = 1.0  # where a quota is free again once another call of the caller has ended
MAX_CALLERS = 100_000  # known at once, some hundred bytes each


@dataclass(eq=False)
class Account:
    """What one caller took.

    Attributes:
        taken: What was taken of each rate and has not flowed back, and since when that is counted.
        held: What open calls hold.
        used_s: When the caller was last seen.
    """

    taken: dict[Rate, tuple[float, float]] = field(default_factory=dict)
    held: Counter[Concurrency] = field(default_factory=Counter)
    used_s: float = 0.0


class Accounts:
    """The accounts of all callers."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, max_callers: int = MAX_CALLERS
    ) -> None:
        """Knows no caller yet; the clock counts seconds and never goes back."""
        self._clock, self._max_callers = clock, max_callers
        self._accounts: OrderedDict[str, Account] = OrderedDict()  # the longest unused first
        self.open_calls = 0

    def __len__(self) -> int:
        return len(self._accounts)

    def open_call(self, caller: str, policy: Policy) -> "CallQuotas":
        """Returns what a call takes of its caller's quotas; a context manager."""
        now_s = self._clock()
        self._forget_idle(now_s)
        account = self._accounts.setdefault(caller, Account())
        account.used_s = now_s
        self._accounts.move_to_end(caller)
        return CallQuotas(self, account, caller, policy, self._clock)

    def _forget_idle(self, now_s: float) -> None:
        """Forgets who was idle for a minute; beyond `max_callers`, who was idle longest.

        A caller of an open call counts as seen now.
        """
        for _ in range(2):  # two for each call that adds one at most, so that the number falls
            if not self._accounts:
                return
            caller, account = next(iter(self._accounts.items()))
            if now_s - account.used_s < MINUTE_S and len(self._accounts) < self._max_callers:
                return
            if any(account.held.values()):
                account.used_s = now_s
                self._accounts.move_to_end(caller)
            else:
                del self._accounts[caller]


class CallQuotas:
    """What one call takes of its caller's quotas.

    At its end the call gives back what it held and, if it is refused before `begin_work`, what it
    took of the rates.
    """

    def __init__(
        self,
        accounts: Accounts,
        account: Account,
        caller: str,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        """Takes nothing yet."""
        self._accounts, self._account = accounts, account
        self._caller, self._policy, self._clock = caller, policy, clock
        self._taken: Counter[Rate] = Counter()
        self._held: Counter[Concurrency] = Counter()
        self._begun = False

    def __enter__(self) -> "CallQuotas":
        self._accounts.open_calls += 1
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._accounts.open_calls -= 1
        self._account.held -= self._held
        self._account.used_s = self._clock()
        late = grpc.StatusCode.DEADLINE_EXCEEDED  # it may have decoded nearly to its end
        refused = isinstance(error, RequestError) and error.code is not late
        if refused and not self._begun:
            for rate, amount in self._taken.items():
                taken, since_s = self._account.taken[rate]
                self._account.taken[rate] = (max(0.0, taken - amount), since_s)

    def begin_work(self) -> None:
        """Makes what was taken final: from here on the call costs, however it ends."""
        self._begun = True

    def take(self, rate: Rate, amount: int) -> None:
        """Takes an amount of a rate.

        Raises:
            RequestError: RESOURCE_EXHAUSTED: less is left.
        """
        limit = getattr(self._policy, rate)
        if limit is None:
            return
        now_s = self._clock()
        taken, since_s = self._account.taken.get(rate, (0.0, now_s))
        taken = max(0.0, taken - (now_s - since_s) * limit / MINUTE_S)
        self._account.taken[rate] = (taken, now_s)
        if taken + amount > limit:
            # The millisecond is for the rounding of sums: who comes back then finds enough.
            wait_s = None if amount > limit else (taken + amount - limit) * MINUTE_S / limit + 1e-3
            raise self._exceeded(rate, limit, amount, retry_after_s=wait_s)
        self._account.taken[rate] = (taken + amount, now_s)
        self._taken[rate] += amount

    def hold(self, quota: Concurrency, amount: int) -> None:
        """Holds an amount until the call ends.

        Raises:
            RequestError: RESOURCE_EXHAUSTED: the caller's open calls leave less.
        """
        limit = getattr(self._policy, quota)
        if limit is not None and self._account.held[quota] + amount > limit:
            wait_s = None if amount > limit else RETRY_AFTER_S
            raise self._exceeded(quota, limit, amount, retry_after_s=wait_s)
        self._account.held[quota] += amount
        self._held[quota] += amount

    def check_share(self, calls: int) -> None:
        """Refuses a call whose caller has as many other calls open as may still be opened.

        So a lone caller may hold half of them, and a new caller finds room beside it, as in the
        queue for slots (`FairQueue.has_room`).

        Args:
            calls: Calls that the server may have open.

        Raises:
            RequestError: RESOURCE_EXHAUSTED.
        """
        others = self._account.held["concurrent_streams"] - 1
        left = calls - (self._accounts.open_calls - 1)
        if others >= left:
            raise resource_exhausted(
                f"{others} other calls of caller {self._caller!r} are open, and {max(0, left)} "
                "more of all callers may be; try again",
                retry_after_s=RETRY_AFTER_S,
            )

    def _exceeded(
        self, quota: str, limit: int, amount: int, *, retry_after_s: float | None
    ) -> RequestError:
        if limit == 0:
            advice = "it allows none"
        elif retry_after_s is None:
            advice = "ask for less"
        else:
            advice = f"try again in {retry_after_s:.3g} s"
        message = (
            f"the quota {quota} of caller {self._caller!r} is {limit}, "
            f"and this call needs {amount} of it: {advice}"
        )
        return RequestError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            message,
            quota=QuotaViolation(quota=quota, limit=limit, caller=self._caller, message=message),
            retry_after_s=retry_after_s,
        )
