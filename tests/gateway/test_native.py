"""Muse's own REST: every edit, every step of it as an event, and what is refused."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from muse.common.v1.caller_pb2 import Priority
from muse_client import AsyncMuseClient
from PIL import Image

from services.orchestrator import scoring
from services.sampling import SAMPLING_PARAMETERS
from tests.gateway.conftest import Gateway, running_gateway
from tests.gateway.pictures import SIDE_PX, file_of, noise, pixels_of
from tests.orchestrator.test_best_of import FAVOURITE, Nearest
from tests.small_stages import DEFAULTS, House, open_house

GENERATE, INPAINT, OUTPAINT = (f"/v1/muse/{each}" for each in ("generate", "inpaint", "outpaint"))
MASK_FREE_EDIT, VARY = "/v1/muse/mask-free-edit", "/v1/muse/vary"
PICTURE = {"image": ("noise.png", file_of(noise()), "image/png")}
Event = tuple[str, dict[str, Any]]


def events_of(text: str) -> list[Event]:
    """Returns name and data of each event of a stream, comments left out."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def answered(gateway: Gateway, path: str, **form: Any) -> dict[str, Any]:
    """The answer to an edit of `PICTURE`."""
    response = await gateway.http.post(path, files=PICTURE, data={"prompt": "a fox", **form})
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_a_prompt_gives_the_pictures_that_grpc_gives(house: House, gateway: Gateway) -> None:
    body = {"prompt": "a fox", "seed": 7, "count": 2}
    answer = (await gateway.http.post(GENERATE, json=body)).json()

    async with AsyncMuseClient(house.address) as muse:
        expected = await muse.generate("a fox", seed=7, count=2)
    assert [base64.b64decode(each["image"]) for each in answer["images"]] == [
        each.png for each in expected
    ]
    assert [each["seed"] for each in answer["images"]] == [7, 8]
    assert (answer["seed"], answer["preset"], answer["warnings"]) == (7, "tiny", [])
    stages = {each["stage"] for each in answer["images"][0]["timings"]}
    assert {"base", "superres", "tokenizer"} <= stages == set(answer["device_s"])


async def test_every_field_reaches_the_stages(house: House, gateway: Gateway) -> None:
    body = {
        "prompt": "a fox",
        "negative_prompt": "an owl",
        "base": {"steps": 9, "temperature": 0.5, "min_steps": 1},
        "superres": {"steps": 2},
        "adapters": {"owl": 0.5},
        "priority": "batch",
        "output_format": "webp",
        "quality": 80,
    }
    answer = (await gateway.http.post(GENERATE, json=body)).json()

    (base,), (superres,) = house.stages["base"].asked, house.stages["superres"].asked
    assert (base.sampling.steps, base.sampling.temperature) == (9, 0.5)
    assert superres.sampling.steps == 2
    assert [(each.name, each.weight) for each in base.adapters] == [("owl", 0.5)]
    assert base.caller.priority == Priority.PRIORITY_BATCH
    content = base64.b64decode(answer["images"][0]["image"])
    assert Image.open(io.BytesIO(content)).format == "WEBP"
    assert 0 <= answer["seed"] < 2**53


async def test_a_stream_has_every_step_and_the_previews_that_are_asked_for(
    gateway: Gateway,
) -> None:
    body = {"prompt": "a zebra", "seed": 7, "stream": True, "preview_every": 2}
    response = await gateway.http.post(GENERATE, json=body)
    events = events_of(response.text)

    assert response.headers["content-type"].startswith("text/event-stream")
    names = [name for name, _ in events]
    assert (names[0], names[-2:]) == ("accepted", ["image", "done"])
    assert [data["words"] for name, data in events if name == "warning"] == [["zebra"]]
    steps = [data for name, data in events if name == "progress" and data["stage"] == "base"]
    total = DEFAULTS["base"].steps
    assert [each["step"] for each in steps] == list(range(1, total + 1))
    assert {each["total"] for each in steps} == {total}
    seen = [each["step"] for each in steps if "preview" in each]
    assert seen == sorted({*range(2, total + 1, 2), total})
    assert pixels_of(steps[-1]["preview"]).shape[2] == 3
    whole = (await gateway.http.post(GENERATE, json={"prompt": "a zebra", "seed": 7})).json()
    assert dict(events)["image"]["image"] == whole["images"][0]["image"]


async def test_an_outpainting_grows_by_its_sides_and_keeps_the_picture(gateway: Gateway) -> None:
    answer = await answered(gateway, OUTPAINT, right_px=16, top_px=8)

    (image,) = answer["images"]
    assert (image["width_px"], image["height_px"]) == (SIDE_PX + 16, SIDE_PX + 8)
    assert (pixels_of(image["image"])[8:, :SIDE_PX] == noise()).all()


async def test_an_inpainting_repaints_the_white_of_a_mask(gateway: Gateway) -> None:
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    mask[:, : SIDE_PX // 2] = 255
    files = {**PICTURE, "mask": ("mask.png", file_of(mask), "image/png")}
    data = {"prompt": "a fox", "feather_px": "0"}
    kept = (await gateway.http.post(INPAINT, files=files, data=data)).json()
    data["composite"] = "false"
    whole = (await gateway.http.post(INPAINT, files=files, data=data)).json()

    kept_pixels, pixels = (pixels_of(each["images"][0]["image"]) for each in (kept, whole))
    right = np.s_[:, SIDE_PX // 2 :]
    assert (kept_pixels[right] == noise()[right]).all()
    assert (kept_pixels != noise()).any()
    assert (pixels[right] != noise()[right]).any()


@pytest.mark.parametrize("name", ["return_iterations", "return_iterations[]"])
async def test_a_mask_free_edit_returns_the_iterations_that_are_asked_for(
    house: House, gateway: Gateway, name: str
) -> None:
    form = {"iterations": "4", "fraction": "0.5", name: ["0", "2"], "base": '{"top_k": 2}'}
    answer = await answered(gateway, MASK_FREE_EDIT, **form)

    assert [each["iteration"] for each in answer["images"]] == [0, 2, 4]
    assert {each.sampling.top_k for each in house.stages["base"].asked} == {2}


async def test_an_edit_streams_its_parts(gateway: Gateway) -> None:
    data = {"prompt": "a fox", "right_px": "32", "stream": "true"}
    response = await gateway.http.post(OUTPAINT, files=PICTURE, data=data)
    events = events_of(response.text)

    steps = [each for name, each in events if name == "progress" and each["stage"] == "base"]
    assert {(each["part"], each["parts"]) for each in steps} == {(0, 2), (1, 2)}
    assert [name for name, _ in events[-2:]] == ["image", "done"]


async def test_a_variation_needs_no_prompt(gateway: Gateway) -> None:
    response = await gateway.http.post(VARY, files=PICTURE, data={"strength": "0.9"})

    assert response.status_code == 200, response.text
    assert pixels_of(response.json()["images"][0]["image"]).shape == noise().shape


async def test_the_best_candidates_come_best_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "load_scorer", lambda _: Nearest())
    async with open_house() as house, running_gateway(house) as gateway:
        body = {"prompt": "a fox", "seed": FAVOURITE - 2, "count": 2, "best_of": 4}
        answer = (await gateway.http.post(GENERATE, json=body)).json()

    first, second = answer["images"]
    assert (first["rank"], first["seed"], first["index"]) == (0, FAVOURITE, 2)
    assert second["rank"] == 1
    assert first["score"] > second["score"]


async def test_a_failure_after_the_stream_began_is_its_last_event(
    house: House, gateway: Gateway
) -> None:
    body = {"prompt": "a fox", "stream": True}
    async with gateway.http.stream("POST", GENERATE, json=body) as response:
        await house.lines["superres"].cut()
        text = (await response.aread()).decode()

    name, data = events_of(text)[-1]
    assert (response.status_code, name) == (200, "error")
    assert "superres" in data["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({}, 400, "prompt", "Field required"),
        ({"prompt": ""}, 400, "prompt", "at least 1 character"),
        ({"prompt": "a fox", "count": 17}, 400, "count", "got '17'"),
        ({"prompt": "a fox", "count": "2"}, 400, "count", "valid integer, got '2'"),
        ({"prompt": "a fox", "n": 2}, 400, "n", "got '2'"),
        ({"prompt": "a fox", "base": {"steps": 257}}, 400, "base.steps", "got '257'"),
        ({"prompt": "a fox", "base": {"seed": 1}}, 400, "base.seed", "got '1'"),
        ({"prompt": "a fox", "adapters": {"owl": 11}}, 400, "adapters.owl", "got '11'"),
        ({"prompt": "a fox", "adapters": {"cat": 1}}, 404, "adapters[0].name", "cat"),
        ({"prompt": "a fox", "priority": "urgent"}, 400, "priority", "got 'urgent'"),
        ({"prompt": "a fox", "count": 3, "best_of": 2}, 400, "best_of", "3 to 16"),
        ({"prompt": "a fox", "best_of": 2}, 501, None, "scorer"),
    ],
)
async def test_a_body_that_is_wrong_is_refused(
    gateway: Gateway, body: dict[str, Any], status: int, param: str | None, words: str, stream: bool
) -> None:
    response = await gateway.http.post(GENERATE, json={**body, "stream": stream})

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert words in error["message"]


async def test_previews_without_a_stream_are_refused(gateway: Gateway) -> None:
    response = await gateway.http.post(GENERATE, json={"prompt": "a fox", "preview_every": 3})

    assert response.status_code == 400
    message = "preview_every: expected 0 without stream, got 3"
    assert response.json()["error"]["message"] == message


@pytest.mark.parametrize(
    ("path", "form", "param", "words"),
    [
        (OUTPAINT, {}, "outpaint", "on all four"),
        (OUTPAINT, {"right_px": "16385"}, "right_px", "got '16385'"),
        (OUTPAINT, {"iterations": "3"}, "iterations", "got '3'"),
        (MASK_FREE_EDIT, {"iterations": "3", "strength": "0.5"}, "strength", "iterations"),
        (MASK_FREE_EDIT, {"return_iterations": ["x"]}, "return_iterations.0", "got 'x'"),
        (MASK_FREE_EDIT, {"base": "{"}, "base", "JSON, or fields base[...]"),
        (MASK_FREE_EDIT, {"base": '{"temperature": false}'}, "base.temperature", "valid number"),
        (MASK_FREE_EDIT, {"adapters": '{"fox": "1"}'}, "adapters.fox", "valid number"),
        (VARY, {"strength": "0"}, "strength", "got '0'"),
        (INPAINT, {}, "mask", "mask"),
    ],
)
async def test_a_form_that_is_wrong_is_refused_by_field(
    gateway: Gateway, path: str, form: dict[str, Any], param: str, words: str
) -> None:
    response = await gateway.http.post(path, files=PICTURE, data={"prompt": "a fox", **form})

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert words in error["message"]


async def test_an_edit_without_its_picture_is_refused(gateway: Gateway) -> None:
    files = {"prompt": (None, "a fox")}
    response = await gateway.http.post(VARY, files=files)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "image"


async def test_the_document_has_every_sampling_parameter_and_describes_every_field(
    gateway: Gateway,
) -> None:
    document = (await gateway.http.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]

    parameters = schemas["SamplingParameters"]["properties"]
    assert parameters.keys() == SAMPLING_PARAMETERS.keys() - {"seed"}
    described = dict(schemas)
    for path, operations in document["paths"].items():
        if path.startswith("/v1/muse/"):
            content = operations["post"]["requestBody"]["content"]
            described[path] = next(iter(content.values()))["schema"]
            answers = operations["post"]["responses"]
            assert answers.keys() == {"200", "4XX", "5XX"}
            events = answers["200"]["content"]["text/event-stream"]["itemSchema"]["oneOf"]
            for event in events:
                described[f"{path} {event['properties']['event']['const']}"] = event["properties"][
                    "data"
                ]["contentSchema"]
    assert len(described) > 40
    constant = {"error", "object", "created", "owned_by", "background"}  # or one value
    for name, schema in described.items():
        for field, content in schema.get("properties", {}).items():
            assert "description" in content or field in constant, (name, field)
