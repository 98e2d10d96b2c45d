"""Who is in which slot of a device, and when: requests join and leave between its steps.

Plain Python over a protocol, without threads, clocks or a model of its own: `services.runtime.
inflight` runs it on the device thread, tests and benchmarks run it on made-up devices.

Source: DESIGN 5; Yu et al. 2022, "Orca" (iteration-level scheduling).
"""

import logging
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Generic

from opentelemetry.trace import SpanContext

from services.runtime.observability.instruments import DEVICE, STEPS, WAITS, Load, Reason, refused
from services.runtime.scheduling.dispatch import steps_to_take
from services.runtime.scheduling.fair_queue import WaitingLine
from services.runtime.scheduling.forecast import StepTimes, Work, seconds_to_finish
from services.runtime.scheduling.slots import (
    Dispatch,
    Failed,
    HandedBack,
    Job,
    SlotDevice,
    State,
    Ticket,
)
from services.runtime.wire.caller import ANYBODY, Claim
from services.runtime.wire.errors import RequestError, resource_exhausted, unavailable
from services.runtime.wire.timing import Timed

logger = logging.getLogger(__name__)
SHORTEST_RETRY_S = 0.01
MEND_EVERY_S = 2.0  # between tries to use a device again that failed
PLANNED_SHARE = 0.9  # of a caller's time; the rest is for the way back and for slower steps


class SlotScheduler(Generic[Job, State]):
    """Gives waiting requests the slots of a device, in the order of `WaitingLine`.

    `turn` is called by the device's thread alone, the rest by any.
    """

    def __init__(
        self,
        device: SlotDevice[Job, State],
        *,
        max_queued: int,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Dispatch[Job, State]], None] = lambda dispatch: None,
    ) -> None:
        """Starts with free slots.

        Args:
            device: What computes.
            max_queued: Places of the waiting line; whoever finds no room in it is refused.
            clock: Tells the seconds.
            observe: Told on the device thread of each dispatch in which somebody is traced, before
                the steps are counted down.

        Raises:
            ValueError: max_queued is below 1.
        """
        if max_queued < 1:
            raise ValueError(f"max_queued: expected at least 1, got {max_queued}")
        self._device, self._clock, self._observe = device, clock, observe
        self._waiting: WaitingLine[Ticket[Job, State]] = WaitingLine(max_queued)
        self._seated: dict[int, Ticket[Job, State]] = {}
        self._lock = Lock()  # over the two above; never held while the device works
        self._times = StepTimes()
        self._clean = self._works = True
        self._stopping = False

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Requests that hold a slot."""
        return len(self._seated)

    def load(self) -> Load:
        """Returns how busy it is."""
        with self._lock:
            waiting = self._waiting.everybody()
            return Load(
                slots=self._device.slots,
                active=len(self._seated),
                places=self._waiting.places,
                queued=len(waiting),
                queued_steps=sum(ticket.left * ticket.job.rows for ticket in waiting),
            )

    @property
    def busy(self) -> bool:
        """Whether there is anything to do, were it to mend the device."""
        with self._lock:
            return bool(self._waiting or self._seated or not self._clean)

    @property
    def works(self) -> bool:
        """Whether the device can be used; if not, each turn tries to mend it."""
        return self._works

    def submit(
        self,
        job: Job,
        tell: Callable[[State | Timed[State] | Failed | HandedBack[State]], None],
        *,
        watched: bool,
        within_s: float | None = None,
        claim: Claim = ANYBODY,
        trace: SpanContext | None = None,
    ) -> Ticket[Job, State]:
        """Queues a request.

        Args:
            job: What to run.
            tell: Called on the device thread with what happens to it, see `Ticket`.
            watched: Whether each step is told.
            within_s: Seconds its caller waits for it; None for as long as it takes.
            claim: On whose behalf, and how urgent.
            trace: The span it belongs to, if it is traced.

        Raises:
            RequestError: RESOURCE_EXHAUSTED: too many wait already, or it would be done too late.
                UNAVAILABLE: everything is handed back, or the device fails.
        """
        ticket = Ticket(job, tell, watched, self._clock(), job.steps_left, trace)
        with self._lock:
            if self._stopping:
                raise refused(
                    "stopping", unavailable("this replica stops: another one may serve the request")
                )
            if not self._works:
                raise refused(
                    "device_fails",
                    unavailable(
                        "this replica's device fails: another one may serve the request",
                        retry_after_s=MEND_EVERY_S,
                    ),
                )
            if not self._waiting.room_for(claim):
                waiting = len(self._waiting)
                raise _refusal(
                    "queue_full",
                    f"{waiting} requests wait already, no place is left for another of this caller",
                    self._seconds_to_finish(0, 1, claim),
                )
            # Alone it is taken in any case: else one slow step would have all refused from then on.
            if within_s is not None and (self._waiting or self._seated):
                done_s = self._seconds_to_finish(ticket.left, job.rows, claim)
                planned_s = PLANNED_SHARE * within_s
                if done_s is not None and done_s > planned_s:
                    raise _refusal(
                        "too_late",
                        f"{ticket.left} steps from now would end in {done_s:.3g} s, and the caller "
                        f"waits for {within_s:.3g} s, of which {planned_s:.3g} s are planned with",
                        done_s - planned_s,
                    )
            self._waiting.join(ticket, claim, ticket.left * job.rows)
        return ticket

    def most_in_time(
        self, steps: int, rows: int, within_s: float | None, claim: Claim = ANYBODY
    ) -> int:
        """Returns the most steps, at most so many, that a request of now is done with in time.

        Args:
            steps: As many as are wanted.
            rows: Rows that one of them computes.
            within_s: Seconds its caller waits; None for as long as it takes.
            claim: On whose behalf, and how urgent.
        """
        with self._lock:
            if within_s is None or self._seconds_to_finish(steps, rows, claim) is None:
                return steps
            # More steps never end sooner: the last of those that are in time is found by halving.
            return bisect_right(
                range(1, steps + 1),
                PLANNED_SHARE * within_s,
                key=lambda each: self._seconds_to_finish(each, rows, claim) or 0.0,
            )

    def abandon(self, ticket: Ticket[Job, State]) -> None:
        """Takes note that nobody waits for a request: it leaves before the next dispatch.

        One that has ended stays ended.
        """
        with self._lock:
            ticket.abandoned = True
            self._waiting.leave(ticket)

    def hand_back(self) -> None:
        """Has the next turn give up all requests, each told how far it came; none is taken after.

        For a process that stops: what it cannot finish goes on elsewhere.
        """
        with self._lock:
            self._stopping = True

    def turn(self) -> bool:
        """Frees the slots of those who left, seats those who wait, and dispatches once.

        Whatever the device raises ends the requests in its slots and nothing else; the next turn
        mends it. If that fails too, who waits is handed back and nobody is taken until it works.

        Returns:
            Whether there is more to do at once.
        """
        if not self._clean and not self._mended():
            return False
        begin_s = self._clock()
        try:
            self._free_abandoned()
            if self._stopping:
                self._give_up_all()
                return self.busy
            self._seat_waiting()
            if self._seated:
                self._dispatch(begin_s)
        except Exception as error:
            self._fail(error)
        return self.busy

    def _mended(self) -> bool:
        try:
            self._device.reset()
        except Exception:
            logger.exception("the device cannot be used", extra={"again_in_s": MEND_EVERY_S})
            self._works = False
            self._hand_back_waiting()
        else:
            self._clean = self._works = True
        return self._works

    def _free_abandoned(self) -> None:
        for slot in [slot for slot, ticket in self._seated.items() if ticket.abandoned]:
            self._device.release(slot)
            self._empty(slot)

    def _seat_waiting(self) -> None:
        for slot in range(self._device.slots):
            if slot in self._seated:
                continue
            with self._lock:
                ticket = self._waiting.next()
                if ticket is None:
                    return
                self._seated[slot] = ticket
                ticket.start_s = self._clock()
            WAITS.record(ticket.start_s - ticket.arrival_s, trace=ticket.trace)
            try:
                self._device.admit(slot, ticket.job)
                ticket.prefill_s = self._clock() - ticket.start_s
            except Exception as error:  # those who are seated already go on
                self._empty(slot)
                self._tell_failure(error, [ticket])

    def _hand_back_waiting(self) -> None:
        while True:
            with self._lock:
                ticket = self._waiting.next()
            if ticket is None:
                return
            ticket.tell(HandedBack(None))

    def _give_up_all(self) -> None:
        self._hand_back_waiting()
        states = self._device.advance(0, set(self._seated)) if self._seated else {}
        for slot, ticket in list(self._seated.items()):
            self._device.release(slot)
            self._empty(slot)
            ticket.tell(HandedBack(states[slot]))

    def _dispatch(self, begin_s: float) -> None:
        seated = dict(self._seated)
        rows = sum(ticket.job.rows for ticket in seated.values())
        steps = steps_to_take(
            [ticket.left for ticket in seated.values()],
            watched=any(ticket.watched for ticket in seated.values()),
            waiting=self.queued > 0,
            step_s=self._times.seconds(rows),
        )
        ending = {slot for slot, ticket in seated.items() if ticket.left == steps}
        watched = {slot for slot, ticket in seated.items() if ticket.watched}
        advance_s = self._clock()
        states = self._device.advance(steps, ending | watched)
        end_s = self._clock()
        DEVICE.add(end_s - begin_s)
        STEPS.add(steps * rows)
        self._account(seated, rows, begin_s, end_s)
        if any(ticket.trace is not None for ticket in seated.values()):
            self._observe(self._dispatched(seated, steps, advance_s, end_s))
        if steps:  # with the time it took to seat those who came: they delay everybody's step
            self._times.measure(rows, (end_s - begin_s) / steps)
        for slot, ticket in seated.items():
            ticket.left -= steps
            if slot in watched and steps:
                ticket.tell(states[slot])
            if slot in ending:
                self._empty(slot)
                queue_s = ticket.queue_s or 0.0
                compute_s = end_s - ticket.arrival_s - queue_s
                ticket.tell(Timed(states[slot], queue_s, compute_s, ticket.device_s))

    def _account(
        self, seated: Mapping[int, Ticket[Job, State]], rows: int, begin_s: float, end_s: float
    ) -> None:
        """Divides a turn's time among those in slots, by their rows."""
        for ticket in seated.values():
            ticket.device_s += (end_s - begin_s) * ticket.job.rows / rows

    def _dispatched(
        self, seated: Mapping[int, Ticket[Job, State]], steps: int, begin_s: float, end_s: float
    ) -> Dispatch[Job, State]:
        return Dispatch(
            begin_s=begin_s,
            end_s=end_s,
            handed_out_s=self._device.handed_out_s,
            steps=steps,
            tickets=list(seated.values()),
        )

    def _fail(self, error: Exception) -> None:
        self._clean = False
        with self._lock:
            failed = list(self._seated.values())
            self._seated.clear()
        self._tell_failure(error, failed)

    def _tell_failure(self, error: Exception, tickets: list[Ticket[Job, State]]) -> None:
        failure = uuid.uuid4().hex[:12]
        logger.error(
            "compute failed", exc_info=error, extra={"failure": failure, "requests": len(tickets)}
        )
        for ticket in tickets:
            ticket.tell(Failed(failure))

    def _empty(self, slot: int) -> None:
        with self._lock:
            del self._seated[slot]

    def _seconds_to_finish(self, steps: int, rows: int, claim: Claim) -> float | None:
        """Returns when a request that comes now is done; None if nobody knows."""
        ahead, behind = self._waiting.around(claim)
        return seconds_to_finish(
            Work(steps, rows),
            seated=_work(self._seated.values()),
            ahead=_work(ahead),
            behind=_work(behind),
            slots=self._device.slots,
            times=self._times,
        )


def _work(tickets: Iterable[Ticket[Job, State]]) -> list[Work]:
    return [Work(ticket.left, ticket.job.rows) for ticket in tickets]


def _refusal(reason: Reason, sentence: str, retry_after_s: float | None) -> RequestError:
    retry_after_s = max(SHORTEST_RETRY_S, retry_after_s or 0.0)
    return refused(
        reason, resource_exhausted(f"{sentence}: try again later", retry_after_s=retry_after_s)
    )
