"""What is recorded of jobs: traces that go on, and logs without prompts, also where all fails."""

import asyncio
import json
import logging
from pathlib import Path

import pytest
from muse_client.calls import trace_metadata
from sqlalchemy import create_engine, text

from tests.gateway.jobs.conftest import BODY, JOBS, StartJobs, added, gone, reached
from tests.gateway.test_bad_input import refusal_of
from tests.small_stages import House
from tests.waiting import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET_PROMPT = "a zebra that no log may name"


async def execute(folder: Path, statement: str, **values: str) -> None:
    """Executes a statement of another program in the database of a test."""

    def execute() -> None:
        engine = create_engine(f"sqlite:///{folder / 'data' / 'jobs.db'}")
        with engine.begin() as connection:
            connection.execute(text(statement), values)
        engine.dispose()

    await asyncio.to_thread(execute)  # it may wait for a transaction of the event loop


async def test_a_job_goes_on_in_the_trace_of_its_request(
    start_jobs: StartJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    def recorded() -> tuple[tuple[str, str], ...]:
        sent.append(dict(trace_metadata()))
        return trace_metadata()

    monkeypatch.setattr("muse_client.asynchronous.trace_metadata", recorded)
    async with start_jobs() as gateway:
        job_id = await added(gateway, {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
        await reached(gateway, job_id, "succeeded")
    assert len(sent) == 2  # what judges the credential, and the job itself
    assert all(TRACE in each["traceparent"] for each in sent)


async def test_a_database_that_fails_is_503_and_no_prompt_is_logged(
    start_jobs: StartJobs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "services.gateway")
    async with start_jobs() as gateway:
        await reached(gateway, await added(gateway, prompt=SECRET_PROMPT), "succeeded")
        await execute(tmp_path, "alter table jobs rename to away")
        response = await gateway.http.post(JOBS, json={**BODY, "prompt": SECRET_PROMPT})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert refusal_of(response)["message"] == "the database of jobs cannot be used now"
        await until(lambda: "no job can be claimed" in caplog.text)
        await execute(tmp_path, "alter table away rename to jobs")
        await reached(gateway, await added(gateway), "succeeded")
    assert "job succeeded" in caplog.text
    assert "zebra" not in caplog.text


async def test_a_job_of_another_version_fails_and_no_prompt_is_logged(
    house: House, start_jobs: StartJobs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await house.lines["base"].cut()
    async with start_jobs() as gateway:
        job_id = await added(gateway, prompt=SECRET_PROMPT)
    later = json.dumps({"prompt": SECRET_PROMPT, "seed": 7, "of_a_later_version": 1})
    await execute(tmp_path, "update jobs set request = :later", later=later)
    async with start_jobs() as gateway:
        failed = await reached(gateway, job_id, "failed")
        assert "another version of the gateway" in failed["error"]["message"]
    assert "zebra" not in caplog.text


async def test_a_picture_that_is_gone_is_not_found(start_jobs: StartJobs, tmp_path: Path) -> None:
    async with start_jobs() as gateway:
        done = await reached(gateway, await added(gateway), "succeeded")
        (image,) = done["result"]["images"]
        for url in (image["url"][:-1] + "1", f"{JOBS}/{done['id']}/pictures/{2**70}"):
            assert refusal_of(await gateway.http.get(url))["code"] == "not_found"
        (file,) = (tmp_path / "data" / "pictures" / done["id"]).rglob("0")
        file.unlink()
        assert refusal_of(await gateway.http.get(image["url"]))["message"] == "the picture is gone"
    async with start_jobs(jobs_kept_s=0.01) as gateway:
        await gone(gateway, done["id"])
