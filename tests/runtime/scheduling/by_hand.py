"""The servers' scheduler, ticked by hand."""

from typing import Any

from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.scheduling.slots import RequestState
from services.runtime.wire.caller import ANONYMOUS, Caller
from services.runtime.wire.timing import Timed
from tests.runtime.conftest import Countdown


class Bench:
    """A scheduler over a fake device and a virtual clock: a step takes a second."""

    def __init__(self, device: Any, countdown: type[Countdown], *, max_queued: int = 100) -> None:
        self.device, self.countdown = device, countdown
        self.now_s = 0.0
        self.scheduler: SlotScheduler[Any, Any] = SlotScheduler(
            device, max_queued=max_queued, clock=lambda: self.now_s
        )
        self.events: dict[str, list[Any]] = {}
        self.states: dict[str, RequestState[Any, Any]] = {}
        self.step_s = 1.0
        original = device.advance

        def advance(steps: int, *slots: Any) -> Any:
            self.now_s += self.step_s * steps
            return original(steps, *slots)

        device.advance = advance

    def submit(
        self,
        name: str,
        steps: int,
        *,
        stream: bool = False,
        poison: str = "",
        within_s: float | None = None,
        caller: Caller = ANONYMOUS,
    ) -> None:
        events = self.events[name] = []
        request = self.countdown(name, steps, poison)
        self.states[name] = self.scheduler.submit(
            request, events.append, stream=stream, within_s=within_s, caller=caller
        )

    def cancel(self, name: str) -> None:
        self.scheduler.cancel(self.states[name])

    def finish(self) -> None:
        while self.scheduler.tick():
            assert len(self.device.dispatches) < 1000, "the scheduler never ends"

    def result(self, name: str) -> Timed[Any]:
        timed = self.events[name][-1]
        assert isinstance(timed, Timed)
        return timed
