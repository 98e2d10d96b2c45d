"""Pictures through OpenAI's own Python client, unmodified."""

import asyncio
import base64
import io
from typing import Any

import openai
import pytest
from muse_client import AsyncMuseClient
from PIL import Image

from tests.gateway.conftest import Gateway, Start
from tests.small_stages import DEFAULTS, HIGH_SIDE_PX, House
from tests.waiting import until

SIDE = f"{HIGH_SIDE_PX}x{HIGH_SIDE_PX}"


def opened(content: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(content)))


async def test_a_prompt_gives_the_picture_that_grpc_gives(house: House, gateway: Gateway) -> None:
    answer = await gateway.openai.images.generate(prompt="a fox", extra_body={"seed": 7})

    async with AsyncMuseClient(house.address) as muse:
        (expected,) = await muse.generate("a fox", seed=7)
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    assert base64.b64decode(answer.data[0].b64_json) == expected.png
    assert (answer.size, answer.output_format, answer.background) == (SIDE, "png", "opaque")


async def test_every_field_reaches_the_stages(house: House, gateway: Gateway) -> None:
    extra = {
        "seed": 2**53 + 1,
        "steps": 9,
        "guidance_scale": 3.5,
        "base": {"temperature": 0.5},
        "superres": {"steps": 2},
        "negative_prompt": "an owl",
        "adapters": {"owl": 0.5},
    }
    answer = await gateway.openai.images.generate(
        model="tiny", prompt="a fox", n=2, size="auto", user="jo", quality="high", extra_body=extra
    )

    assert answer.data is not None
    assert [each.to_dict()["seed"] for each in answer.data] == [2**53 + 1, 2**53 + 2]
    base, superres = (house.stages[name].asked[0] for name in ("base", "superres"))
    assert (base.sampling.steps, base.sampling.guidance_scale) == (9, 3.5)
    assert base.sampling.temperature == 0.5
    assert superres.sampling.steps == 2
    assert [(each.name, each.weight) for each in base.adapters] == [("owl", 0.5)]
    texts = [text for each in house.stages["text_encoder"].asked for text in each.texts]
    assert set(texts) == {"a fox", "an owl"}


async def test_a_drawn_seed_is_a_whole_number_in_javascript(gateway: Gateway) -> None:
    response = await gateway.http.post("/v1/images/generations", json={"prompt": "a fox"})

    assert response.status_code == 200
    assert 0 <= response.json()["data"][0]["seed"] < 2**53


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
async def test_other_formats_keep_the_mark_of_generated_pictures(
    house: House, gateway: Gateway, output_format: Any
) -> None:
    answer = await gateway.openai.images.generate(
        prompt="a fox", output_format=output_format, output_compression=90, extra_body={"seed": 7}
    )
    async with AsyncMuseClient(house.address) as client:
        (picture,) = await client.generate(
            "a fox", seed=7, picture_format=output_format, quality=90
        )

    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    assert base64.b64decode(answer.data[0].b64_json) == picture.file  # with its signature, if any
    with opened(answer.data[0].b64_json) as image:
        image.load()
        assert image.format == output_format.upper()
        xmp = image.info["xmp"].decode()
    assert "trainedAlgorithmicMedia" in xmp
    assert 'muse:prompt="a fox"' in xmp


async def test_a_stream_shows_the_picture_form(house: House, gateway: Gateway) -> None:
    stream = await gateway.openai.images.generate(
        prompt="a fox", stream=True, partial_images=2, extra_body={"seed": 7}
    )
    events = [event async for event in stream]

    partial = [each for each in events if each.type == "image_generation.partial_image"]
    assert [each.partial_image_index for each in partial] == [0, 1]
    assert [each.type for each in events[2:]] == ["image_generation.completed"]
    last = events[-1]
    whole = await gateway.openai.images.generate(prompt="a fox", extra_body={"seed": 7})
    assert whole.data is not None
    assert last.b64_json == whole.data[0].b64_json
    assert (last.size, last.output_format) == (SIDE, "png")


@pytest.mark.parametrize("wanted", [0, 1, 3])
async def test_a_stream_has_as_many_previews_as_are_asked_for(
    gateway: Gateway, wanted: int
) -> None:
    assert DEFAULTS["base"].steps >= wanted
    stream = await gateway.openai.images.generate(
        prompt="a fox", n=2, stream=True, partial_images=wanted
    )
    types = [event.type async for event in stream]

    assert types.count("image_generation.partial_image") == wanted
    assert types.count("image_generation.completed") == 2


async def test_words_that_the_model_does_not_know_are_warned_of(gateway: Gateway) -> None:
    body = {"prompt": "a zebra"}
    whole = await gateway.http.post("/v1/images/generations", json=body)
    stream = await gateway.http.post("/v1/images/generations", json={**body, "stream": True})

    assert "zebra" in whole.json()["warnings"][0]
    assert "event: image_generation.warning" in stream.text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_goes_away_ends_the_work(
    house: House, gateway: Gateway, stream: bool
) -> None:
    entered, base = asyncio.Event(), house.stages["base"]

    async def for_ever(_: int) -> None:
        entered.set()
        await asyncio.Event().wait()

    base.around = for_ever
    body = {"prompt": "a fox", "stream": stream}
    asking = asyncio.create_task(gateway.http.post("/v1/images/generations", json=body))
    await entered.wait()
    asking.cancel()
    await until(lambda: base.cancelled == 1)


async def test_a_failure_after_the_stream_began_is_an_event_of_it(
    house: House, gateway: Gateway
) -> None:
    stream = await gateway.openai.images.generate(prompt="a fox", stream=True)
    await house.lines["superres"].cut()

    with pytest.raises(openai.APIError, match="superres") as caught:
        [event async for event in stream]
    assert caught.value.type == "server_error"


async def test_models_are_the_preset_and_its_aliases(start: Start) -> None:
    async with start(model_aliases=("gpt-image-1",)) as gateway:
        assert [each.id async for each in gateway.openai.models.list()] == ["tiny", "gpt-image-1"]
        assert (await gateway.openai.models.retrieve("tiny")).owned_by == "muse"
        answer = await gateway.openai.images.generate(model="gpt-image-1", prompt="a fox")
        assert answer.data is not None
