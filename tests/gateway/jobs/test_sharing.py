"""Several gateways of one database: a lost one loses no job, and none runs twice."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from muse_client import AsyncMuseClient

from services.gateway.jobs import runner
from tests.gateway.conftest import running_gateway
from tests.gateway.jobs.conftest import (
    BODY,
    JOBS,
    Held,
    Receiver,
    StartJobs,
    added,
    job,
    pictures,
    reached,
)
from tests.gateway.test_process import gateway_process
from tests.small_stages import House
from tests.waiting import until

LEASE_S = 0.6


async def expected(house: House) -> list[bytes]:
    """The pictures of `BODY` by gRPC."""
    async with AsyncMuseClient(house.address) as muse:
        return [each.png for each in await muse.generate("a fox", seed=7)]


async def test_a_gateway_that_is_killed_loses_no_job_and_its_caller_is_called_once(
    house: House,
    start_jobs: StartJobs,
    settings: dict[str, Any],
    receiver: Receiver,
    hooks: dict[str, Any],
) -> None:
    held = Held(house)
    flags = (
        *("--orchestrator", house.address),
        *("--jobs-database", settings["jobs_database"]),
        *("--jobs-lease-s", str(LEASE_S)),
        *("--webhook-secret-file", str(hooks["webhook_secret_file"])),
        *("--webhook-allowed", *hooks["webhook_allowed"]),
    )
    async with gateway_process(*flags) as (process, lines):
        async with httpx2.AsyncClient(base_url=lines[-1]["address"], timeout=30) as http:
            # Without a seed: what the first gateway drew the second must use.
            body = {"operation": "generate", "prompt": "a fox", "webhook": receiver.url}
            job_id = (await http.post(JOBS, json=body)).json()["id"]
        await held.entered.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    held.gate.set()
    async with start_jobs(jobs_lease_s=LEASE_S, **hooks) as second:
        done = await reached(second, job_id, "succeeded")
        (content,) = await pictures(second, done)
        await until(lambda: receiver.bodies)
    async with start_jobs(**hooks) as third:
        await added(third, webhook=receiver.url)
        await until(lambda: len(receiver.bodies) > 1)

    async with AsyncMuseClient(house.address) as muse:
        (again,) = await muse.generate("a fox", seed=done["seed"])
    assert content == again.png
    assert [each.sampling.seed for each in house.stages["base"].asked[:2]] == [done["seed"]] * 2
    assert [each["webhook-id"] for each in receiver.headers].count(f"evt_{job_id}") == 1


async def test_a_gateway_that_ends_hands_its_jobs_on_at_once(
    house: House, start_jobs: StartJobs
) -> None:
    held = Held(house)
    async with start_jobs() as first:
        job_id = await added(first)
        await held.entered.wait()
    assert house.stages["base"].cancelled == 1
    held.gate.set()
    async with start_jobs() as second:  # whose leases of 30 s are not waited for
        done = await reached(second, job_id, "succeeded")
        assert await pictures(second, done) == await expected(house)


async def test_many_gateways_run_each_job_once(house: House, start_jobs: StartJobs) -> None:
    async with start_jobs() as first, start_jobs() as second, start_jobs() as third:
        gateways = (first, second, third)
        ids = await asyncio.gather(*(added(gateways[each % 3], seed=each) for each in range(24)))
        for job_id in ids:
            await reached(first, job_id, "succeeded")
    seeds = [each.sampling.seed for each in house.stages["base"].asked]
    assert sorted(seeds) == list(range(24))


async def test_any_gateway_cancels_a_job(house: House, start_jobs: StartJobs) -> None:
    held = Held(house)
    async with start_jobs() as first, start_jobs(jobs_running=1) as second:
        job_id = await added(first)
        await held.entered.wait()
        await second.http.delete(f"{JOBS}/{job_id}")
        await until(lambda: house.stages["base"].cancelled == 1)
        assert (await job(first, job_id))["state"] == "cancelled"


async def test_a_job_that_kills_its_gateways_is_given_up(
    house: House, start_jobs: StartJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_LOSSES", -1)
    async with start_jobs() as gateway:
        failed = await reached(gateway, await added(gateway), "failed")
    assert "were lost 0 times" in failed["error"]["message"]
    assert house.calls() == 0


async def test_a_key_file_of_another_gateway_fails_the_job_and_says_why(
    house: House, settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held(house)
    async with running_gateway(house, **settings) as first:
        response = await first.http.post(JOBS, json=BODY, headers={"Authorization": "Bearer any"})
        await held.entered.wait()
    held.gate.set()
    (tmp_path / "data" / "jobs.key").unlink()
    async with running_gateway(house, **settings) as second:
        job_id, headers = response.json()["id"], {"Authorization": "Bearer any"}
        failed = await reached(second, job_id, "failed", headers=headers)
    assert failed["error"]["message"] == "the gateway failed; its log says why"
    assert "encrypted by a key that this gateway's jobs_key_file lacks" in caplog.text
