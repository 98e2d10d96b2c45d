"""Jobs belong to their callers: ids of others, keys of requests, and how many may wait."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import jwt
import pytest
from muse_client import AsyncMuseClient, Unavailable

from services.gateway.jobs import callers
from tests.gateway.conftest import Gateway, running_gateway
from tests.gateway.jobs.conftest import BODY, JOBS, Held, StartJobs, added, job, reached
from tests.gateway.pictures import file_of, noise
from tests.gateway.test_bad_input import refusal_of
from tests.orchestrator.callers.conftest import KeyFile, guarded
from tests.small_stages import House


def bearer(credential: str) -> dict[str, str]:
    """The header that presents a credential."""
    return {"Authorization": f"Bearer {credential}"}


def files_of(folder: Path) -> list[Path]:
    """All files in a folder."""
    return [each for each in folder.rglob("*") if each.is_file()]


async def test_a_job_of_another_caller_is_not_found(
    key_file: Callable[..., KeyFile], tmp_path: Path
) -> None:
    keys = key_file("jo", "sam")
    database = tmp_path / "jobs.db"
    async with (
        guarded(keys) as house,
        running_gateway(house, jobs_database=f"sqlite:///{database}") as gateway,
    ):
        jo, sam = bearer(keys.keys["jo"]), bearer(keys.keys["sam"])
        job_id = await added(gateway, jo)
        done = await reached(gateway, job_id, "succeeded", headers=jo)  # run with jo's own key
        (image,) = done["result"]["images"]
        assert (await gateway.http.get(image["url"], headers=jo)).status_code == 200
        unknown = await gateway.http.get(f"{JOBS}/{'0' * 32}", headers=sam)
        for method, path in (
            ("GET", f"{JOBS}/{job_id}"),
            ("DELETE", f"{JOBS}/{job_id}"),
            ("GET", image["url"]),
        ):
            response = await gateway.http.request(method, path, headers=sam)
            assert response.status_code == 404
            assert response.json() == unknown.json()
        for headers in ({}, bearer("none")):
            for method, path in (("POST", JOBS), ("GET", f"{JOBS}/{job_id}")):
                response = await gateway.http.request(method, path, headers=headers, json=BODY)
                assert response.status_code == 401
        stored = b"".join(each.read_bytes() for each in files_of(tmp_path))
        assert b"a fox" in stored
        assert keys.keys["jo"].encode() not in stored


async def test_who_was_accepted_may_ask_while_the_orchestrator_is_away(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await added(gateway, bearer("jo"))

    async def away(_: AsyncMuseClient) -> None:
        raise Unavailable(grpc.StatusCode.UNAVAILABLE, "no orchestrator answers")

    monkeypatch.setattr(AsyncMuseClient, "status", away)
    monkeypatch.setattr(callers, "KNOWN_S", 0.0)
    assert (await job(gateway, job_id, bearer("jo")))["id"] == job_id
    response = await gateway.http.get(f"{JOBS}/{job_id}", headers=bearer("sam"))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


async def test_a_renewed_token_is_the_same_caller(gateway: Gateway) -> None:
    def token(subject: str, number: int) -> dict[str, str]:
        claims = {"iss": "https://issuer", "sub": subject, "jti": str(number)}
        return bearer(jwt.encode(claims, "a secret of no less than 32 bytes", "HS256"))

    job_id = await added(gateway, token("jo", 1))
    assert (await job(gateway, job_id, token("jo", 2)))["id"] == job_id
    other = await gateway.http.get(f"{JOBS}/{job_id}", headers=token("sam", 1))
    assert other.status_code == 404


async def test_a_request_that_is_sent_again_makes_no_other_job(
    house: House, gateway: Gateway
) -> None:
    key = {"Idempotency-Key": "order 7"}
    ids = await asyncio.gather(*(added(gateway, key, count=2) for _ in range(5)))
    await reached(gateway, ids[0], "succeeded")
    later = await added(gateway, key, count=2)

    assert {*ids, later} == {ids[0]}
    assert len(house.stages["base"].asked) == 2
    assert await added(gateway, {"Idempotency-Key": "order 8"}, count=2) != later
    assert await added(gateway, key | bearer("jo"), count=2) != later


async def test_a_key_of_another_request_is_refused(gateway: Gateway) -> None:
    key = {"Idempotency-Key": "order 7"}
    files = {"image": ("noise.png", file_of(noise()), "image/png")}
    form = {"operation": "vary", "seed": "7"}
    first = await gateway.http.post(JOBS, data=form, files=files, headers=key)
    again = await gateway.http.post(JOBS, data=form, files=files, headers=key)
    assert again.json()["id"] == first.json()["id"]

    files["image"] = ("noise.png", file_of(noise()[:, ::-1]), "image/png")
    for sent in (
        {"data": form, "files": files},
        {"json": BODY},
        {"data": {**form, "seed": "8"}, "files": files},
    ):
        response = await gateway.http.post(JOBS, headers=key, **sent)
        assert response.status_code == 422
        error = refusal_of(response)
        assert (error["code"], error["param"]) == ("idempotency_key_reused", "Idempotency-Key")
        assert "expected the request that came with 'order 7'" in error["message"]


@pytest.mark.parametrize("key", ["", 256 * "a", "caf\xe9"])
async def test_a_key_that_is_no_key_is_refused(gateway: Gateway, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    response = await gateway.http.post(JOBS, json=BODY, headers=headers)
    assert response.status_code == 400
    assert refusal_of(response)["param"] == "Idempotency-Key"


async def test_so_many_jobs_wait_and_further_ones_are_refused(
    house: House, start_jobs: StartJobs, tmp_path: Path
) -> None:
    held = Held(house)
    async with start_jobs(jobs_running=1, jobs_queued=3, jobs_queued_per_caller=2) as gateway:
        running = await added(gateway)
        await held.entered.wait()
        waiting = [await added(gateway) for _ in range(2)]
        files = {"image": ("noise.png", file_of(noise()), "image/png")}
        refused = await gateway.http.post(JOBS, data={"operation": "vary"}, files=files)
        await added(gateway, bearer("sam"))
        full = await gateway.http.post(JOBS, json=BODY, headers=bearer("kim"))
        for response, words in ((refused, "2 jobs of one caller"), (full, "all 3 jobs")):
            assert response.status_code == 429
            assert response.headers["retry-after"] == "10"
            assert refusal_of(response)["code"] == "queue_full"
            assert words in refusal_of(response)["message"]
        assert not list((tmp_path / "data").rglob("image"))  # of the one that was refused
        held.gate.set()
        for job_id in (running, *waiting):
            await reached(gateway, job_id, "succeeded")
        await added(gateway)
