"""Requests of jobs that are refused: the right status, and one sentence that names the field."""

import json
from typing import Any

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.jobs.conftest import BODY, JOBS, added, reached
from tests.gateway.pictures import file_of, noise
from tests.gateway.test_bad_input import refusal_of
from tests.small_stages import House

PICTURE = {"image": ("noise.png", file_of(noise()), "image/png")}


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ("{", None, "the body is no JSON"),
        ([], None, "body: "),
        ({"prompt": "a fox"}, "operation", "Field required"),
        ({**BODY, "operation": "vary"}, "operation", "another operation in a form with its file"),
        ({**BODY, "operation": 3}, "operation", "got 3"),
        ({"operation": "generate"}, "prompt", "Field required"),
        ({**BODY, "prompt": ""}, "prompt", "at least 1 character"),
        ({**BODY, "count": 17}, "count", "got '17'"),
        ({**BODY, "count": "2"}, "count", "valid integer"),
        ({**BODY, "seed": 2**64}, "seed", "less than"),
        ({**BODY, "stepz": 3}, "stepz", "got '3'"),
        ({**BODY, "base": {"steps": 257}}, "base.steps", "got '257'"),
        ({**BODY, "stream": True}, "stream", "expected false in a job, whose progress GET answers"),
        ({**BODY, "preview_every": 2}, "preview_every", "expected 0 without stream, got 2"),
        ({**BODY, "webhook": 3}, "webhook", "valid string"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_and_no_job_is_there(
    house: House, gateway: Gateway, body: Any, param: str | None, words: str
) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    headers = {"Content-Type": "application/json", "Idempotency-Key": "once"}
    response = await gateway.http.post(JOBS, content=content, headers=headers)

    assert response.status_code == 400, response.text
    error = refusal_of(response)
    assert error["param"] == param
    assert words in error["message"]
    job_id = await added(gateway, {"Idempotency-Key": "once"})  # the key is still free
    await reached(gateway, job_id, "succeeded")
    assert len(house.stages["base"].asked) == 1


@pytest.mark.parametrize(
    ("form", "files", "param", "words"),
    [
        ({"prompt": "a fox"}, PICTURE, "operation", "expected one of generate, inpaint, outpaint"),
        ({"operation": "paint"}, PICTURE, "operation", "got 'paint'"),
        ({"operation": "vary"}, {"mask": PICTURE["image"]}, "mask", "files image only"),
        ({"operation": "vary"}, {"x": ("x", b"", "text/plain")}, "x", "files image only"),
        ({"operation": "generate", "prompt": "a fox"}, PICTURE, "image", "a file of this name"),
        ({"operation": "vary", "strength": "0"}, PICTURE, "strength", "got '0'"),
        ({"operation": "vary", "feather_px": "3"}, PICTURE, "feather_px", "got '3'"),
    ],
)
async def test_a_form_that_is_wrong_is_refused_by_field(
    gateway: Gateway, form: dict[str, str], files: Any, param: str, words: str
) -> None:
    response = await gateway.http.post(JOBS, data=form, files=files)
    assert response.status_code == 400, response.text
    error = refusal_of(response)
    assert error["param"] == param
    assert words in error["message"]


async def test_what_the_orchestrator_refuses_is_the_error_of_the_job(gateway: Gateway) -> None:
    form = {"operation": "outpaint", "prompt": "a fox"}  # no side grows
    response = await gateway.http.post(JOBS, data=form, files=PICTURE)
    failed = await reached(gateway, response.json()["id"], "failed")
    assert failed["error"]["param"] == "outpaint"
    assert "on all four" in failed["error"]["message"]


async def test_an_edit_without_its_picture_is_refused(gateway: Gateway) -> None:
    response = await gateway.http.post(JOBS, files={"operation": (None, "vary")})
    assert response.status_code == 400
    assert refusal_of(response)["param"] == "image"


async def test_a_body_of_another_type_is_refused(gateway: Gateway) -> None:
    response = await gateway.http.post(JOBS, content=b"x", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
    assert "application/json for generate" in refusal_of(response)["message"]


async def test_what_is_no_number_of_a_picture_is_refused(gateway: Gateway) -> None:
    response = await gateway.http.get(f"{JOBS}/x/pictures/-1")
    assert response.status_code == 400
    assert refusal_of(response)["param"] == "number"


@pytest.mark.parametrize("job_id", ["x", "%00", "a" * 500, "..%2f.."])
async def test_an_id_of_no_job_is_not_found(gateway: Gateway, job_id: str) -> None:
    for method in ("GET", "DELETE"):
        response = await gateway.http.request(method, f"{JOBS}/{job_id}")
        assert response.status_code == 404
