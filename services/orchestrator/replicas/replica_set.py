"""The replicas of a stage as one channel, which balances calls by outstanding work."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from services.orchestrator.replicas.hedging import HedgedCall, Hedging
from services.orchestrator.replicas.replica import HealthState, Method, Replica
from services.runtime.server.certificates import ReloadedCertificates
from services.runtime.wire.errors import unavailable

logger = logging.getLogger(__name__)
MAX_NAMED = 3  # replicas whose problems an error message lists


class ReplicaSet:
    """The replicas of a stage; generated stubs use it as a channel.

    Each call goes to the serving replica with the least outstanding work; ties go to the replica
    chosen least recently. A replica that failed is ejected for a time that doubles with each
    failure in a row, unless every serving replica is ejected.
    """

    def __init__(
        self,
        stage: str,
        addresses: Iterable[str] = (),
        *,
        source: str = "",
        max_message_mib: int = 32,
        hedging: Hedging | None = None,
        certificates: ReloadedCertificates | None = None,
        server_name: str = "",
    ) -> None:
        """Starts to connect to every address; needs a running event loop.

        `source` is the reason that errors give while there are no addresses. Without `hedging` no
        call is hedged; without `certificates` calls are in plain text. `server_name` is the name in
        the certificate of every replica; "" for the host of its address.
        """
        self.stage, self._source, self._max_message_mib = stage, source, max_message_mib
        self._hedging, self._certificates, self._server_name = hedging, certificates, server_name
        self.on_change: Callable[[], None] = lambda: None  # called for a new or lost replica
        self._replicas: dict[str, Replica] = {}
        self._renewed: dict[str, Replica] = {}  # connections that do not serve yet
        self._retiring: dict[asyncio.Task[None], Replica] = {}
        self._serving: set[Replica] = set()
        self._none_since: datetime | None = datetime.now(UTC)
        self._turn = 0
        self.update(addresses)

    @property
    def replicas(self) -> list[Replica]:
        """Current replicas, without those that retire."""
        return list(self._replicas.values())

    def update(self, addresses: Iterable[str]) -> None:
        """Connects to new replicas, and retires missing ones once their calls have ended."""
        current = set(addresses)
        gone, new = self._replicas.keys() - current, current - self._replicas.keys()
        for address in sorted(gone):
            self._retire(self._replicas.pop(address))
            if address in self._renewed:
                self._retire(self._renewed.pop(address))
        # In random order, or orchestrators would all start with the same replica.
        for address in random.sample(sorted(new), len(new)):
            self._replicas[address] = self._connect(address)
        if gone or new:
            extra = {"stage": self.stage, "new": sorted(new), "gone": sorted(gone)}
            logger.info("replicas", extra=extra)
            self._review()
        if new:
            self.on_change()

    def reconnect(self) -> None:
        """Connects to every replica anew, since a channel keeps the certificates it began with.

        A new connection takes the place of the old one as soon as it serves; the calls of the old
        one end there.
        """
        for address in self._replicas:
            if address in self._renewed:
                self._retire(self._renewed.pop(address))
            self._renewed[address] = self._connect(address)

    def choose(self) -> Replica:
        """Returns the replica for the next call.

        Replicas of unknown health are chosen only while none serves; a call to one of them waits a
        few seconds at most until it connects.

        Raises:
            RequestError: UNAVAILABLE: no replica serves; the message says since when and why.
        """
        candidates = self._with_health(HealthState.SERVING) or self._with_health(
            HealthState.UNKNOWN
        )
        if not candidates:
            raise unavailable(self.unavailable_reason())
        return self._least_busy(_not_ejected(candidates) or candidates)

    def choose_other(self, first: Replica) -> Replica | None:
        """Returns a serving replica other than `first` for a hedged call; None without one."""
        serving = self._with_health(HealthState.SERVING)
        others = [each for each in _not_ejected(serving) if each is not first]
        return self._least_busy(others) if others else None

    def any_replica(self) -> Replica:
        """Returns a replica for a status query: a serving one if there is one, or else any.

        Raises:
            RequestError: UNAVAILABLE: there are no replicas.
        """
        if not self._serving and self._replicas:
            return next(iter(self._replicas.values()))
        return self.choose()

    def unavailable_reason(self) -> str:
        """Returns since when no replica serves, and why; "" while one serves."""
        if self._none_since is None:
            return ""
        problems = [f"{each.address}: {each.problem}" for each in self._replicas.values()]
        why = "; ".join(problems[:MAX_NAMED]) or self._source or "none is known"
        if len(problems) > MAX_NAMED:
            why += f"; and {len(problems) - MAX_NAMED} more"
        since = self._none_since.isoformat(timespec="seconds")
        return f"stage {self.stage} has no ready replica since {since}: {why}"

    def unary_unary(
        self, method: str, _registered_method: bool = False, **serializers: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Returns a callable of a method with one response, as a channel does."""
        return self._balanced(Method("unary_unary", method, **serializers))

    def unary_stream(
        self, method: str, _registered_method: bool = False, **serializers: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Returns a callable of a method with a stream of responses, as a channel does."""
        return self._balanced(Method("unary_stream", method, **serializers))

    async def close(self) -> None:
        """Cancels the calls in progress and closes every channel."""
        replicas = [*self._replicas.values(), *self._renewed.values(), *self._retiring.values()]
        retiring = list(self._retiring)
        await asyncio.gather(*(replica.close() for replica in replicas))
        await asyncio.gather(*retiring, return_exceptions=True)

    def _balanced(self, method: Method) -> Callable[..., Any]:
        def call(request: Any, *, timeout: float | None = None) -> Any:
            replica = self.choose()
            if self._hedging is None or len(self._replicas) == 1:
                return replica.call(method, request, timeout)
            return HedgedCall(
                self._hedging, method, request, timeout, replica, lambda: self.choose_other(replica)
            )

        return call

    def _connect(self, address: str) -> Replica:
        return Replica(
            address,
            changed=self._review,
            max_message_mib=self._max_message_mib,
            certificates=None if self._certificates is None else self._certificates.current,
            server_name=self._server_name,
        )

    def _retire(self, replica: Replica) -> None:
        retiring = asyncio.create_task(replica.retire())
        self._retiring[retiring] = replica
        retiring.add_done_callback(lambda task: self._retiring.pop(task, None))

    def _with_health(self, health: HealthState) -> list[Replica]:
        return [each for each in self._replicas.values() if each.health is health]

    def _least_busy(self, replicas: Iterable[Replica]) -> Replica:
        chosen = min(replicas, key=lambda replica: (replica.outstanding, replica.chosen))
        self._turn += 1
        chosen.chosen = self._turn
        return chosen

    def _review(self) -> None:
        """Updates the set of serving replicas, and the time since which there are none."""
        for address, renewed in list(self._renewed.items()):
            if renewed.health is HealthState.SERVING:
                self._retire(self._replicas[address])
                self._replicas[address] = self._renewed.pop(address)
        before = self._serving
        self._serving = set(self._with_health(HealthState.SERVING))
        if self._serving:
            self._none_since = None
        elif self._none_since is None:
            self._none_since = datetime.now(UTC)
            logger.warning(self.unavailable_reason())
        if before - self._serving:
            self.on_change()


def _not_ejected(replicas: Iterable[Replica]) -> list[Replica]:
    now = time.monotonic()
    return [replica for replica in replicas if replica.ejected_until <= now]
