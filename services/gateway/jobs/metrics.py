"""Metrics of jobs and of their webhooks.

Source of names and units: OpenTelemetry, "Metrics semantic conventions".
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from services.gateway.jobs.database.tables import JobRow

Outcome: TypeAlias = Literal["delivered", "put_off", "given_up"]
# A job may wait for an hour, and its pictures take minutes.
SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class JobMetrics:
    """What a gateway measures of jobs.

    Attributes:
        queued: Jobs in the database that wait; None if the database did not say.
    """

    def __init__(self, meters: MeterProvider) -> None:
        """Makes the instruments; counters start at an explicit 0 for exact rates."""
        meter = meters.get_meter("muse")
        self.queued: int | None = None
        self._waits = meter.create_histogram(
            "muse.jobs.queue.duration",
            "s",
            "Time from when a job may run to the start of its run.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._durations = meter.create_histogram(
            "muse.jobs.duration",
            "s",
            "Time from a job's acceptance to its end, by how it ended.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._running = meter.create_up_down_counter(
            "muse.jobs.running", "{job}", "Jobs that this gateway runs."
        )
        self._put_back = meter.create_counter(
            "muse.jobs.put_back", "{run}", "Runs after which the job waits for another."
        )
        self._attempts = meter.create_counter(
            "muse.webhooks.attempts", "{attempt}", "Attempts to deliver a webhook, by outcome."
        )
        meter.create_observable_gauge(
            "muse.jobs.queued", [self._observe], "{job}", "Jobs that wait, of all gateways."
        )
        self._running.add(0)
        self._put_back.add(0)
        for outcome in get_args(Outcome):
            self._attempts.add(0, {"outcome": outcome})

    @contextmanager
    def run(self, job: JobRow) -> Iterator[None]:
        """Counts a job that was claimed among those that run, for the block."""
        assert job.started_s is not None
        self._waits.record(max(0.0, job.started_s - job.not_before_s))
        self._running.add(1)
        try:
            yield
        finally:
            self._running.add(-1)

    def put_back(self) -> None:
        """Counts a run after which its job waits for another."""
        self._put_back.add(1)

    def ended(self, job: JobRow) -> None:
        """Records how long a job that has ended took."""
        assert job.finished_s is not None
        self._durations.record(job.finished_s - job.created_s, {"outcome": job.state})

    def attempted(self, outcome: Outcome) -> None:
        """Counts an attempt to deliver a webhook."""
        self._attempts.add(1, {"outcome": outcome})

    def _observe(self, options: CallbackOptions) -> Iterable[Observation]:
        return () if self.queued is None else (Observation(self.queued),)
