"""Jobs: added, described, run, fetched and cancelled."""

import io
from pathlib import Path

import numpy as np
import pytest
from muse_client import AsyncMuseClient
from PIL import Image

from tests.gateway.conftest import Gateway, Start
from tests.gateway.jobs.conftest import (
    BODY,
    JOBS,
    Held,
    StartJobs,
    added,
    gone,
    job,
    pictures,
    reached,
)
from tests.gateway.pictures import SIDE_PX, file_of, noise
from tests.small_stages import DEFAULTS, House
from tests.waiting import until

PICTURE = {"image": ("noise.png", file_of(noise()), "image/png")}


async def test_a_job_makes_the_pictures_that_grpc_makes(house: House, gateway: Gateway) -> None:
    response = await gateway.http.post(JOBS, json={**BODY, "count": 2})
    accepted = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"{JOBS}/{accepted['id']}"
    done = await reached(gateway, accepted["id"], "succeeded")

    async with AsyncMuseClient(house.address) as muse:
        expected = await muse.generate("a fox", seed=7, count=2)
    assert await pictures(gateway, done) == [each.png for each in expected]
    assert (done["operation"], done["seed"]) == ("generate", 7)
    assert [each["seed"] for each in done["result"]["images"]] == [7, 8]
    assert done["result"]["preset"] == "tiny"
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    assert "place" not in done
    assert "error" not in done


async def test_a_job_without_a_seed_has_one_before_it_runs(house: House, gateway: Gateway) -> None:
    held = Held(house)
    response = await gateway.http.post(JOBS, json={"operation": "generate", "prompt": "a fox"})
    held.gate.set()
    done = await reached(gateway, response.json()["id"], "succeeded")

    assert done["seed"] == response.json()["seed"] == done["result"]["seed"]
    assert 0 <= done["seed"] < 2**53


@pytest.mark.parametrize(
    ("form", "size"),
    [
        ({"operation": "outpaint", "right_px": "16"}, (SIDE_PX + 16, SIDE_PX)),
        ({"operation": "vary", "strength": "0.9", "output_format": "webp"}, (SIDE_PX, SIDE_PX)),
        ({"operation": "mask-free-edit", "iterations": "2"}, (SIDE_PX, SIDE_PX)),
        ({"operation": "inpaint", "base[steps]": "3"}, (SIDE_PX, SIDE_PX)),
    ],
)
async def test_an_edit_is_a_form_with_its_files(
    gateway: Gateway, form: dict[str, str], size: tuple[int, int]
) -> None:
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    mask[:, : SIDE_PX // 2] = 255
    files = dict(PICTURE)
    if form["operation"] == "inpaint":
        files["mask"] = ("mask.png", file_of(mask), "image/png")
    response = await gateway.http.post(JOBS, data={"prompt": "a fox", **form}, files=files)
    assert response.status_code == 202, response.text
    done = await reached(gateway, response.json()["id"], "succeeded")

    (content,) = await pictures(gateway, done)
    image = Image.open(io.BytesIO(content))
    assert image.size == size
    assert image.format == form.get("output_format", "png").upper()
    (details,) = done["result"]["images"]
    answer = await gateway.http.get(details["url"])
    assert answer.headers["content-type"] == f"image/{form.get('output_format', 'png')}"


async def test_a_job_that_runs_says_at_which_step_it_is(house: House, gateway: Gateway) -> None:
    house.stages["base"].steps_before_around = 2
    held = Held(house)
    job_id = await added(gateway)
    await held.entered.wait()
    progress: dict[str, object] = {}
    while progress.get("step") != 2:
        progress = (await job(gateway, job_id)).get("progress", {})
    held.gate.set()

    assert (progress["stage"], progress["total"]) == ("base", DEFAULTS["base"].steps)
    assert (progress["index"], progress["finished"]) == (0, 0)
    assert "progress" not in await reached(gateway, job_id, "succeeded")


async def test_jobs_wait_in_the_order_in_which_they_came(
    house: House, start_jobs: StartJobs
) -> None:
    held = Held(house)
    async with start_jobs(jobs_running=1) as gateway:
        first = await added(gateway)
        await held.entered.wait()
        second, third = await added(gateway), await added(gateway)
        assert (await job(gateway, first))["state"] == "running"
        assert [(await job(gateway, each))["place"] for each in (second, third)] == [1, 2]
        held.gate.set()
        ends = [await reached(gateway, each, "succeeded") for each in (first, second, third)]
    assert ends == sorted(ends, key=lambda each: str(each["finished_at"]))


async def test_a_job_that_runs_is_cancelled_in_its_stage(house: House, gateway: Gateway) -> None:
    held = Held(house)
    job_id = await added(gateway)
    await held.entered.wait()
    response = await gateway.http.delete(f"{JOBS}/{job_id}")

    assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    await until(lambda: house.stages["base"].cancelled == 1)
    assert (await job(gateway, job_id))["state"] == "cancelled"


async def test_a_job_that_waits_is_cancelled_and_never_runs(
    house: House, start_jobs: StartJobs
) -> None:
    held = Held(house)
    async with start_jobs(jobs_running=1) as gateway:
        first = await added(gateway)
        await held.entered.wait()
        second = await added(gateway, seed=8)
        await gateway.http.delete(f"{JOBS}/{second}")
        held.gate.set()
        await reached(gateway, first, "succeeded")
        third = await added(gateway, seed=9)
        await reached(gateway, third, "succeeded")
        assert (await job(gateway, second))["state"] == "cancelled"
    assert [each.sampling.seed for each in house.stages["base"].asked] == [7, 9]


async def test_a_job_that_ended_is_not_cancelled(gateway: Gateway) -> None:
    job_id = await added(gateway)
    done = await reached(gateway, job_id, "succeeded")
    response = await gateway.http.delete(f"{JOBS}/{job_id}")

    assert response.json() == done


async def test_a_job_that_fails_says_why_as_a_request_does(gateway: Gateway) -> None:
    job_id = await added(gateway, adapters={"cat": 1})
    failed = await reached(gateway, job_id, "failed")
    refused = await gateway.http.post(
        "/v1/muse/generate", json={"prompt": "a fox", "adapters": {"cat": 1}}
    )

    assert failed["error"] == refused.json()["error"]
    assert failed["error"]["code"] == "not_found"


async def test_a_job_waits_for_servers_that_are_away(house: House, gateway: Gateway) -> None:
    await house.lines["superres"].cut()
    job_id = await added(gateway)
    while "started_at" not in (put_off := await job(gateway, job_id)):
        assert put_off["state"] in ("queued", "running")
    await house.lines["superres"].restore()

    assert (await reached(gateway, job_id, "succeeded"))["seed"] == 7


async def test_a_job_fails_if_the_servers_stay_away(house: House, start_jobs: StartJobs) -> None:
    await house.lines["superres"].cut()
    async with start_jobs(jobs_retry_s=1e-6) as gateway:
        failed = await reached(gateway, await added(gateway), "failed")

    assert failed["error"]["code"] == "unavailable"
    assert "superres" in failed["error"]["message"]


async def test_an_old_job_is_removed_with_its_pictures(
    start_jobs: StartJobs, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "pictures"
    async with start_jobs() as gateway:
        job_id = await added(gateway)
        await reached(gateway, job_id, "succeeded")
    assert list(folder.rglob("0"))
    async with start_jobs(jobs_kept_s=0.01) as gateway:
        await gone(gateway, job_id)
    assert not list(folder.rglob("0"))


async def test_without_a_database_there_are_no_jobs(start: Start) -> None:
    async with start() as gateway:
        for method, path in (("POST", JOBS), ("GET", f"{JOBS}/x"), ("DELETE", f"{JOBS}/x")):
            response = await gateway.http.request(method, path)
            assert response.status_code == 501
            assert "start it with --jobs-database" in response.json()["error"]["message"]
