"""Edits and variations through OpenAI's own Python client, unmodified."""

import numpy as np
import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.pictures import SIDE_PX, file_of, noise, pixels_of
from tests.small_stages import House


def mask(first_column: int) -> bytes:
    """White everywhere, and transparent before a column."""
    pixels = np.full((SIDE_PX, SIDE_PX, 4), 255, np.uint8)
    pixels[:, :first_column, 3] = 0
    return file_of(pixels)


async def test_a_mask_is_repainted_where_it_is_transparent(gateway: Gateway) -> None:
    answer = await gateway.openai.images.edit(
        image=("fox.png", file_of(noise()), "image/png"),
        mask=mask(SIDE_PX // 2),
        prompt="a fox",
        extra_body={"feather_px": 0, "base": {"steps": 2}},
    )

    assert answer.data is not None
    result = pixels_of(answer.data[0].b64_json)
    assert (result[:, SIDE_PX // 2 :] == noise()[:, SIDE_PX // 2 :]).all()
    assert (result[:, : SIDE_PX // 2] != noise()[:, : SIDE_PX // 2]).any()


async def test_without_a_mask_the_whole_picture_changes(house: House, gateway: Gateway) -> None:
    answer = await gateway.openai.images.edit(
        image=[("fox.png", file_of(noise()), "image/png")],  # sent as image[]
        prompt="a fox in the snow",
        extra_body={"iterations": 3},
    )

    assert answer.data is not None
    assert pixels_of(answer.data[0].b64_json).shape == noise().shape
    assert house.stages["base"].asked[0].sampling.steps == 3


async def test_an_edit_streams(gateway: Gateway) -> None:
    stream = await gateway.openai.images.edit(
        image=file_of(noise()), mask=mask(8), prompt="a fox", stream=True, partial_images=1
    )
    types = [event.type async for event in stream]

    assert types == ["image_edit.partial_image", "image_edit.completed"]


async def test_a_variation_is_of_the_pictures_size(gateway: Gateway) -> None:
    answer = await gateway.openai.images.create_variation(
        image=file_of(noise()), n=2, extra_body={"strength": 0.9}
    )

    assert answer.data is not None
    assert len(answer.data) == 2
    assert pixels_of(answer.data[0].b64_json).shape == noise().shape


@pytest.mark.parametrize(
    ("files", "fields", "param", "message"),
    [
        ({}, {}, "image", "expected a picture's file, got none"),
        ({"image": b"%PDF"}, {}, "image", "expected a PNG, JPEG or WebP file"),
        ({"image": file_of(noise()), "mask": mask(0)}, {}, "mask", "got one without a transparent"),
        (
            {"image": file_of(noise()), "mask": file_of(np.zeros((16, 16, 4), np.uint8))},
            {},
            "mask",
            "expected the picture's 32 x 32 pixels, got 16 x 16",
        ),
        ({"image": file_of(noise())}, {"size": "64x64"}, "size", "expected auto"),
        ({"image": file_of(noise())}, {"feather_px": "2"}, "feather_px", "none without a mask"),
        (
            {"image": file_of(noise()), "mask": mask(8)},
            {"iterations": "2"},
            "iterations",
            "none with a mask",
        ),
        ({"image": file_of(noise())}, {"strength": "2"}, "strength", "got 2"),
        ({"image": file_of(noise())}, {"prompt": ""}, "prompt", "prompt"),
        ({"image": file_of(noise()), "fox": b"x"}, {}, "fox", "files image and mask only"),
        ({"image": file_of(noise())}, {"base[steps]": "many"}, "base.steps", "valid"),
        ({"image": file_of(noise())}, {"base[steps]": "1.5"}, "steps", "expected a number"),
        ({"image": file_of(noise())}, {"base[stepz]": "3"}, "base", "got 'stepz'"),
        ({"image": file_of(noise())}, {"seed": "1", "seed[x]": "2"}, "x", "one value"),
    ],
)
async def test_a_form_that_is_wrong_is_refused_by_field(
    gateway: Gateway, files: dict[str, bytes], fields: dict[str, str], param: str, message: str
) -> None:
    texts = {name: (None, text) for name, text in {"prompt": "a fox", **fields}.items()}
    pictures = {name: (name, content, "image/png") for name, content in files.items()}
    response = await gateway.http.post("/v1/images/edits", files={**texts, **pictures})

    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert message in error["message"]


async def test_two_pictures_are_refused(gateway: Gateway) -> None:
    picture = ("fox.png", file_of(noise()), "image/png")
    response = await gateway.http.post(
        "/v1/images/edits",
        data={"prompt": "a fox"},
        files=[("image[]", picture), ("image[]", picture)],
    )

    assert response.status_code == 400
    assert response.json()["error"]["message"] == "image: expected one picture, got several"
