"""Inpainting through the stages: what the mask covers is new, everything else is as it was."""

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from muse.orchestrator.v1.orchestrator_pb2 import Inpaint
from PIL import Image

from services.pictures.xmp import EDITED_TYPE
from tests.picture_files import file_of, noise, pixels_of
from tests.small_stages import House

SEED = 200  # what the small stages paint: every unknown token has this shade


def corner_mask(height: int = 32, width: int = 32) -> np.ndarray:
    """The upper left quarter."""
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2, : width // 2] = 255
    return mask


def inpaint(picture: np.ndarray | None = None, mask: np.ndarray | None = None, **more: Any) -> Any:
    picture = noise() if picture is None else picture
    mask = corner_mask(*picture.shape[:2]) if mask is None else mask
    return Inpaint(image=file_of(picture), mask=file_of(mask), **more)


async def images(house: House, **changes: Any) -> list[Any]:
    events = await house.events(**{"seed": SEED, **changes})
    assert events[-1].WhichOneof("event") == "done"
    return [event.image for event in events if event.WhichOneof("event") == "image"]


async def test_only_tokens_under_the_mask_are_unknown_low_first(house: House) -> None:
    await images(house, inpaint=inpaint())

    (base,), (superres,) = (house.stages[name].asked for name in ("base", "superres"))
    assert list(base.resume.known) == [0, 1, 1, 1]
    assert list(superres.resume.known) == [0, 0, 1, 1] * 2 + [1] * 8
    assert base.resume.step == 0
    low = np.frombuffer(superres.low_tokens.ids, "<u2")
    assert low[0] == SEED
    assert (low[1:] == np.frombuffer(base.resume.tokens.ids, "<u2")[1:]).all()


@pytest.mark.parametrize("size", [(32, 32), (8, 8 * 2), (45, 70), (200, 20), (16, 16)])
async def test_unmasked_pixels_come_back_bit_for_bit_at_any_size(
    house: House, size: tuple[int, int]
) -> None:
    height, width = (max(16, side) for side in size)
    picture, mask = noise(height, width), corner_mask(height, width)
    (image,) = await images(house, inpaint=inpaint(picture, mask))

    result = pixels_of(image.png)
    assert (image.width_px, image.height_px) == (width, height)
    assert (result[mask == 0] == picture[mask == 0]).all()
    assert (result[0, 0] == SEED).all()


async def test_without_composite_the_decoded_picture_is_returned_everywhere(house: House) -> None:
    picture = noise()
    (image,) = await images(house, inpaint=inpaint(picture, composite=False))

    result = pixels_of(image.png)
    assert (result[:16, :16] >= SEED - 40).mean() > 0.7
    assert (result[corner_mask() == 0] != picture[corner_mask() == 0]).any()


async def test_the_new_fades_in_over_the_feather_asked_for(house: House) -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    hard, soft = [
        pixels_of((await images(house, inpaint=inpaint(black, feather_px=px)))[0].png)
        for px in (0, 8)
    ]
    assert (hard[8, :15, 0] >= soft[8, :15, 0]).all()
    assert soft[8, 15, 0] < hard[8, 15, 0]
    assert soft[1, 1, 0] == hard[1, 1, 0]


async def test_the_mask_may_be_the_pictures_own_alpha(house: House) -> None:
    layered = np.dstack([noise(), 255 - corner_mask()])
    (by_alpha,) = await images(house, inpaint=Inpaint(image=file_of(layered)))

    result = pixels_of(by_alpha.png)
    assert (result[0, 0] == SEED).all()
    assert (result[corner_mask() == 0] == noise()[corner_mask() == 0]).all()


async def test_a_mask_may_mark_by_its_alpha(house: House) -> None:
    coloured = np.dstack([noise(), 255 - corner_mask()])  # white pixels of it mark nothing
    edit = Inpaint(image=file_of(noise()), mask=file_of(coloured), mask_is_alpha=True)
    (image,) = await images(house, inpaint=edit)

    result = pixels_of(image.png)
    assert (result[0, 0] == SEED).all()
    assert (result[corner_mask() == 0] == noise()[corner_mask() == 0]).all()


async def test_a_full_mask_paints_everything(house: House) -> None:
    (image,) = await images(house, inpaint=inpaint(mask=np.full((32, 32), 255, np.uint8)))

    assert (pixels_of(image.png) == SEED).all()
    assert not any(house.stages["base"].asked[0].resume.known)


async def test_exif_orientation_turns_picture_and_mask(house: House) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    lying, mask = noise(20, 40), np.zeros((20, 40), np.uint8)
    mask[:, :20] = 255  # the upper half, once upright
    message = Inpaint(
        image=file_of(lying, exif=exif.tobytes()), mask=file_of(mask, exif=exif.tobytes())
    )
    (image,) = await images(house, inpaint=message)

    upright = np.rot90(lying, -1)
    result = pixels_of(image.png)
    assert result.shape == (40, 20, 3)
    assert (result[20:] == upright[20:]).all()
    assert (result[0, 0] == SEED).all()


async def test_several_seeds_encode_the_picture_once_and_each_is_what_it_is_alone(
    house: House,
) -> None:
    together = await images(house, inpaint=inpaint(), count=3)
    encoded = sum(request.DESCRIPTOR.name == "EncodeRequest" for request in asked(house))
    alone = [(await images(house, inpaint=inpaint(), seed=SEED + at))[0] for at in range(3)]

    assert encoded == 2
    together.sort(key=lambda image: image.index)
    assert [image.png for image in together] == [image.png for image in alone]


def asked(house: House) -> list[Any]:
    return list(house.stages["tokenizer"].asked)


async def test_the_file_says_that_it_was_edited_and_where_the_time_went(house: House) -> None:
    (image,) = await images(house, inpaint=inpaint(), negative_prompt="rain")

    info = Image.open(io.BytesIO(image.png)).info
    assert (info["source"], info["edit"], info["prompt"]) == ("AI-edited", "inpaint", "a fox")
    assert EDITED_TYPE in info["XML:com.adobe.xmp"]
    stages = ["text_encoder", "base", "superres", "tokenizer"]
    assert [timing.stage for timing in image.timings] == stages
    # Encoded twice at once, of which it waited for one, then decoded; the device worked for all.
    assert image.timings[3].compute_s == pytest.approx(2 * 2e-6)
    assert image.timings[3].device_s == pytest.approx(3 * 2e-6)
    assert [call.concurrent for call in image.calls if call.timing.stage == "tokenizer"] == [
        True,
        False,
        False,
    ]
    assert [decode.stage for decode in image.decodes] == ["base", "superres"]


async def test_more_pixels_than_there_is_memory_for_are_refused_by_the_count(house: House) -> None:
    large = np.zeros((4096, 2048), np.uint8)
    refusal = await house.refusal(inpaint=inpaint(large), count=9)

    assert [violation.field for violation in refusal.violations] == ["count"]
    assert "expected at most 8 pictures of 8388608 pixels in all, got 9" in refusal.message


async def test_edits_and_new_pictures_at_once_do_not_disturb_each_other(house: House) -> None:
    alone = [(await images(house, inpaint=inpaint()))[0].png, (await images(house))[0].png]
    together = await asyncio.gather(
        *(images(house, inpaint=inpaint()) for _ in range(4)), *(images(house) for _ in range(4))
    )
    assert [one[0].png for one in together] == [alone[0]] * 4 + [alone[1]] * 4
