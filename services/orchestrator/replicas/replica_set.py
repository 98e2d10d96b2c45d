"""All replicas of a stage, as one channel: each call goes to the one with the least to do."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from services.orchestrator.replicas.hedging import HedgedCall, Hedging
from services.orchestrator.replicas.replica import Method, Replica, Standing
from services.runtime.wire.errors import unavailable

logger = logging.getLogger(__name__)
MOST_NAMED = 3  # replicas whose problems a refusal repeats


class ReplicaSet:
    """The replicas of a stage.

    A generated stub takes it for a channel. Every call goes, of the replicas that serve, to the one
    with the least outstanding work, and of equal ones to the one whose turn is longest ago. A
    replica that failed is left out for a while that doubles with each failure in a row, unless all
    are.
    """

    def __init__(
        self,
        stage: str,
        addresses: Iterable[str] = (),
        *,
        source: str = "",
        max_message_mib: int = 32,
        hedging: Hedging | None = None,
    ) -> None:
        """Connects to every address, in a running event loop.

        Args:
            stage: Its name, for refusals and logs.
            addresses: Of the replicas.
            source: Who says which replicas there are, for a refusal while it has named none.
            max_message_mib: Size of the largest message, in MiB.
            hedging: Which calls are sent to a second replica; none by default.
        """
        self.stage, self._source, self._max_message_mib = stage, source, max_message_mib
        self._hedging = hedging
        self.lost: Callable[[], None] = lambda: None  # called when one came or no longer serves
        self._replicas: dict[str, Replica] = {}
        self._retiring: dict[asyncio.Task[None], Replica] = {}
        self._serving: set[Replica] = set()
        self._none_since: datetime | None = datetime.now(UTC)
        self._turn = 0
        self.update(addresses)

    @property
    def replicas(self) -> list[Replica]:
        """Those that get new calls, if they serve."""
        return list(self._replicas.values())

    def update(self, addresses: Iterable[str]) -> None:
        """Connects to new replicas; those no longer named get no new calls, and end what they have.

        Args:
            addresses: Of all replicas there are now.
        """
        wanted = set(addresses)
        gone, new = self._replicas.keys() - wanted, wanted - self._replicas.keys()
        for address in sorted(gone):
            replica = self._replicas.pop(address)
            retiring = asyncio.create_task(replica.retire())
            self._retiring[retiring] = replica
            retiring.add_done_callback(lambda task: self._retiring.pop(task, None))
        # Orchestrators that begin in the same order would go on in step, all to the same replica.
        for address in random.sample(sorted(new), len(new)):
            self._replicas[address] = Replica(
                address, changed=self._review, max_message_mib=self._max_message_mib
            )
        if gone or new:
            named = {"stage": self.stage, "new": sorted(new), "gone": sorted(gone)}
            logger.info("replicas", extra=named)
            self._review()
        if new:
            self.lost()

    def choose(self) -> Replica:
        """Returns the replica that the next call should go to.

        Those that have not said yet how they are count only while none is known to serve; a call
        to one of them waits until it can connect, a few seconds at most.

        Raises:
            RequestError: UNAVAILABLE: none serves; says since when and why.
        """
        of: dict[Standing, list[Replica]] = {standing: [] for standing in Standing}
        for replica in self._replicas.values():
            of[replica.standing].append(replica)
        able = of[Standing.SERVES] or of[Standing.UNKNOWN]
        if not able:
            raise unavailable(self.absence())
        return self._least_busy(_trusted(able) or able)

    def another(self, than: Replica) -> Replica | None:
        """Returns the replica that a call which one has already should go to as well, if any."""
        able = [each for each in self._replicas.values() if each.standing is Standing.SERVES]
        others = [each for each in _trusted(able) if each is not than]
        return self._least_busy(others) if others else None

    def somebody(self) -> Replica:
        """Returns the replica to ask how the stage is: one that serves, or else any.

        Raises:
            RequestError: UNAVAILABLE: there is none.
        """
        if not self._serving and self._replicas:
            return next(iter(self._replicas.values()))
        return self.choose()

    def absence(self) -> str:
        """Says since when no replica serves, and why; nothing while one does."""
        if self._none_since is None:
            return ""
        problems = [f"{each.address}: {each.problem}" for each in self._replicas.values()]
        why = "; ".join(problems[:MOST_NAMED]) or self._source or "none is known"
        if len(problems) > MOST_NAMED:
            why += f"; and {len(problems) - MOST_NAMED} more"
        since = self._none_since.isoformat(timespec="seconds")
        return f"stage {self.stage} has no ready replica since {since}: {why}"

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,
    ) -> Callable[..., Any]:
        """Returns what calls a method with one answer, as a channel does."""
        return self._balanced(
            Method("unary_unary", method, request_serializer, response_deserializer)
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,
    ) -> Callable[..., Any]:
        """Returns what calls a method with a stream of answers, as a channel does."""
        return self._balanced(
            Method("unary_stream", method, request_serializer, response_deserializer)
        )

    async def close(self) -> None:
        """Closes every channel; calls under way are cancelled."""
        replicas = [*self._replicas.values(), *self._retiring.values()]
        retiring = list(self._retiring)
        await asyncio.gather(*(replica.close() for replica in replicas))
        await asyncio.gather(*retiring, return_exceptions=True)

    def _balanced(self, method: Method) -> Callable[..., Any]:
        def call(request: Any, *, timeout: float | None = None) -> Any:
            replica = self.choose()
            if self._hedging is None or len(self._replicas) == 1:
                return replica.call(method, request, timeout)
            return HedgedCall(
                self._hedging, method, request, timeout, replica, lambda: self.another(replica)
            )

        return call

    def _least_busy(self, replicas: Iterable[Replica]) -> Replica:
        chosen = min(replicas, key=lambda replica: (replica.outstanding, replica.chosen))
        self._turn += 1
        chosen.chosen = self._turn
        return chosen

    def _review(self) -> None:
        """Takes note of who serves, since when nobody does, and who no longer does."""
        before = self._serving
        self._serving = {
            each for each in self._replicas.values() if each.standing is Standing.SERVES
        }
        if self._serving:
            self._none_since = None
        elif self._none_since is None:
            self._none_since = datetime.now(UTC)
            logger.warning(self.absence())
        if before - self._serving:
            self.lost()


def _trusted(replicas: Iterable[Replica]) -> list[Replica]:
    """Returns those that are not left out for now."""
    now = time.monotonic()
    return [replica for replica in replicas if replica.left_out_until <= now]
