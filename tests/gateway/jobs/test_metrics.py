"""What a gateway measures of its jobs and their webhooks."""

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from services.gateway.jobs import service
from tests.gateway.jobs.conftest import JOBS, Held, Receiver, StartJobs, added, reached
from tests.small_stages import House
from tests.waiting import until


def read(reader: InMemoryMetricReader) -> dict[tuple[str, str | None], float]:
    """Values by name and outcome; of histograms how many values they have."""
    data = reader.get_metrics_data()
    assert data is not None
    found = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    outcome = (point.attributes or {}).get("outcome")
                    value = point.count if isinstance(point, HistogramDataPoint) else point.value
                    found[metric.name, None if outcome is None else str(outcome)] = value
    return found


async def test_jobs_and_webhooks_are_counted_by_how_they_ended(
    house: House,
    start_jobs: StartJobs,
    receiver: Receiver,
    hooks: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "COUNT_S", 0.02)
    reader = InMemoryMetricReader()
    receiver.statuses = [503]
    held = Held(house)
    async with start_jobs(
        meters=MeterProvider([reader]), jobs_running=1, webhook_attempts=2, **hooks
    ) as gateway:
        before = read(reader)
        done = await added(gateway, webhook=receiver.url)
        await held.entered.wait()
        waiting = await added(gateway, seed=8)
        # The gauge has no value before the database first said how many wait.
        await until(lambda: read(reader).get(("muse.jobs.queued", None)) == 1)
        assert read(reader)["muse.jobs.running", None] == 1
        await gateway.http.delete(f"{JOBS}/{waiting}")
        held.gate.set()
        await reached(gateway, done, "succeeded")
        await until(lambda: read(reader)["muse.webhooks.attempts", "delivered"] == 1)
        await until(lambda: read(reader)["muse.jobs.running", None] == 0)
    after = read(reader)
    assert before["muse.webhooks.attempts", "put_off"] == before["muse.jobs.put_back", None] == 0
    assert after["muse.jobs.duration", "succeeded"] == 1
    assert after["muse.jobs.duration", "cancelled"] == 1
    assert after["muse.jobs.queue.duration", None] == 1
    assert after["muse.webhooks.attempts", "put_off"] == 1
    assert after["muse.webhooks.attempts", "given_up"] == 0
    assert after["muse.jobs.queued", None] == 0


async def test_a_job_that_a_gateway_puts_back_when_it_ends_is_counted(
    house: House, start_jobs: StartJobs
) -> None:
    reader = InMemoryMetricReader()
    held = Held(house)
    async with start_jobs(meters=MeterProvider([reader])) as gateway:
        await added(gateway)
        await held.entered.wait()
    held.gate.set()
    assert read(reader)["muse.jobs.put_back", None] == 1
