"""The requests of a run: each kind that the API has, with a few fixed seeds."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from muse_client import (
    AsyncMuseClient,
    GeneratedImage,
    GenerateOptions,
    Progress,
    inpainting,
    mask_free_editing,
    outpainting,
)
from PIL import Image

SEEDS = (1, 2, 3)
SIDE_PX = 32  # of the pictures that are edited, as those of the preset tiny


@dataclass(frozen=True)
class Request:
    """One request that a run sends again and again; its answer never changes."""

    name: str
    prompt: str
    options: GenerateOptions

    async def send(self, client: AsyncMuseClient) -> dict[str, str]:
        """Sends the request, and returns the digests of all pictures and previews.

        Raises:
            MuseError: the call failed.
        """
        digests = {}
        async with aclosing(client.events(self.prompt, **self.options)) as events:
            async for event in events:
                if isinstance(event, GeneratedImage):
                    iteration = "" if event.iteration is None else f" after {event.iteration}"
                    digests[f"image {event.index}{iteration}"] = pixel_digest(event.image)
                elif isinstance(event, Progress) and event.preview is not None:
                    place = f"{event.index} of {event.stage}, part {event.part}, step {event.step}"
                    digests[f"preview {place}"] = pixel_digest(event.preview.image)
        return digests


@dataclass(frozen=True)
class Quiet:
    """What a request gives without any fault: digests of its pictures, and its seconds."""

    digests: Mapping[str, str]
    took_s: float


def pixel_digest(image: Image.Image) -> str:
    """Returns the SHA-256 of size, mode and pixels of a picture."""
    head = f"{image.width} {image.height} {image.mode} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


def mixed_requests() -> list[Request]:
    """Returns the requests: generation, previews, inpainting, outpainting, mask-free edits."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    picture, mask = Image.fromarray(pixels), Image.new("L", (SIDE_PX, SIDE_PX))
    mask.paste(255, (8, 8, 24, 20))
    requests = []
    for seed in SEEDS:
        kinds: dict[str, GenerateOptions] = {
            "generate": {"count": 2},
            "previews": {"preview_every": 2},
            "inpaint": {"inpaint": inpainting(picture, mask)},
            "outpaint": {"outpaint": outpainting(picture, left_px=16)},
            "edit": {
                "mask_free_edit": mask_free_editing(picture, iterations=6, return_iterations=[3])
            },
        }
        for kind, options in kinds.items():
            named = Request(f"{kind}/{seed}", "a fox and a sun", {**options, "seed": seed})
            requests.append(named)
    return requests


async def quiet_run(client: AsyncMuseClient, requests: Sequence[Request]) -> dict[str, Quiet]:
    """Sends each request twice, one after the other; returns what each gives.

    Raises:
        RuntimeError: a request gave two answers, or none.
        MuseError: a call failed.
    """
    found = {}
    for request in requests:
        first = await request.send(client)
        begun_s = time.monotonic()
        second = await request.send(client)
        if not first or first != second:
            raise RuntimeError(f"{request.name}: two quiet calls gave {first} and {second}")
        found[request.name] = Quiet(first, time.monotonic() - begun_s)
    return found
