"""The servers' scheduler, turned by hand."""

from typing import Any

from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.scheduling.slots import Ticket
from services.runtime.wire.caller import ANYBODY, Claim
from services.runtime.wire.timing import Timed


class Bench:
    """A scheduler over a fake device, by hand and on a clock of its own: a turn is a second."""

    def __init__(self, device: Any, countdown: Any, *, max_queued: int = 100) -> None:
        self.device, self.countdown = device, countdown
        self.now_s = 0.0
        self.scheduler: SlotScheduler[Any, Any] = SlotScheduler(
            device, max_queued=max_queued, clock=lambda: self.now_s
        )
        self.told: dict[str, list[Any]] = {}
        self.tickets: dict[str, Ticket[Any, Any]] = {}
        original = device.advance

        def advance(steps: int, wanted: Any) -> Any:
            self.now_s += steps
            return original(steps, wanted)

        device.advance = advance

    def submit(
        self,
        name: str,
        steps: int,
        *,
        watched: bool = False,
        poison: str = "",
        within_s: float | None = None,
        claim: Claim = ANYBODY,
    ) -> None:
        events = self.told[name] = []
        job = self.countdown(name, steps, poison)
        self.tickets[name] = self.scheduler.submit(
            job, events.append, watched=watched, within_s=within_s, claim=claim
        )

    def abandon(self, name: str) -> None:
        self.scheduler.abandon(self.tickets[name])

    def finish(self) -> None:
        while self.scheduler.turn():
            assert len(self.device.dispatches) < 1000, "it never ends"

    def result(self, name: str) -> Timed[Any]:
        timed = self.told[name][-1]
        assert isinstance(timed, Timed)
        return timed
