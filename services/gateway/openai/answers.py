"""Answers of OpenAI's images API: whole, or as server-sent events while pictures form."""

import json
import math
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from muse_client import GeneratedImage, MuseError, Progress, RequestWarning
from muse_client.events import in_order
from muse_client.picture_files import PictureFormat
from pydantic import BaseModel, Field

from services.gateway.errors import api_error
from services.gateway.openai.requests import ImageOptions
from services.gateway.pictures import encoded, size_of
from services.gateway.served import Served
from services.gateway.streams import Events, with_pings

Kind = Literal["image_generation", "image_edit"]


class ImageData(BaseModel):
    """A picture of an answer."""

    b64_json: str = Field(description="The picture's file in base64.")
    seed: int = Field(description="Muse: seed that gives this picture again.")
    index: int = Field(description="Muse: index of the picture, from 0.")


class ImagesAnswer(BaseModel):
    """The answer to generations, edits and variations."""

    created: int = Field(description="Seconds since 1970.")
    data: list[ImageData] = Field(description="The pictures, the best first with best_of.")
    background: Literal["opaque"] = "opaque"
    output_format: PictureFormat = Field(description="Format of the files.")
    size: str = Field(description='Width and height of the first picture, such as "256x256".')
    warnings: list[str] | None = Field(None, description="Muse: doubts about the request.")


def preview_every(options: ImageOptions, served: Served) -> int:
    """Returns the steps between previews, so that base gives as many as are asked for."""
    if not options.partial_images:
        return 0
    steps = (
        options.steps or int(options.base.get("steps", 0)) or int(served.defaults["base"]["steps"])
    )
    return max(1, math.ceil(steps / options.partial_images))


async def whole(events: Events, options: ImageOptions) -> ImagesAnswer:
    """Returns the answer that has every picture.

    Raises:
        MuseError: the request failed.
    """
    images: list[GeneratedImage] = []
    warnings: list[str] = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, GeneratedImage):
                images.append(event)
            elif isinstance(event, RequestWarning):
                warnings.append(event.message)
    return ImagesAnswer(
        created=int(time.time()),
        data=[
            ImageData(b64_json=await _content(each.file, options), **_origin(each))
            for each in in_order(images)
        ],
        output_format=options.output_format,
        size=size_of(images[0].file),
        warnings=warnings or None,
    )


async def streamed(events: Events, options: ImageOptions, kind: Kind) -> AsyncIterator[bytes]:
    """Yields server-sent events: previews of the first picture, each picture, perhaps an error.

    Args:
        events: Of the request; its previews are those of base.
        options: The request.
        kind: What the events' types begin with.
    """
    previews = 0
    async with aclosing(with_pings(events)) as waiting:
        try:
            async for event in waiting:
                if event is None:
                    yield KEEPALIVE_COMMENT
                elif isinstance(event, RequestWarning):
                    yield _sent(f"{kind}.warning", {"message": event.message})
                elif isinstance(event, GeneratedImage):
                    fields = await _event_of(event.file, options)
                    yield _sent(f"{kind}.completed", fields | _origin(event))
                elif isinstance(event, Progress) and _is_partial(event, previews, options):
                    assert event.preview is not None
                    fields = await _event_of(event.preview.png, options)
                    yield _sent(f"{kind}.partial_image", fields | {"partial_image_index": previews})
                    previews += 1
        except MuseError as error:
            yield _sent("error", api_error(error).body)


def _is_partial(event: Progress, previews: int, options: ImageOptions) -> bool:
    return (
        event.preview is not None
        and event.index == 0
        and event.stage == "base"
        and previews < options.partial_images
    )


async def _content(file: bytes, options: ImageOptions) -> str:
    return await encoded(file, options.output_format, options.output_compression)


def _origin(image: GeneratedImage) -> dict[str, Any]:
    return {"seed": image.seed, "index": image.index}


async def _event_of(file: bytes, options: ImageOptions) -> dict[str, Any]:
    """Returns what an event says of a picture."""
    return {
        "b64_json": await _content(file, options),
        "created_at": int(time.time()),
        "size": size_of(file),
        "quality": "auto",
        "background": "opaque",
        "output_format": options.output_format,
    }


def _sent(kind: str, fields: dict[str, Any]) -> bytes:
    body = fields if kind == "error" else {"type": kind, **fields}
    return format_sse_event(event=kind, data_str=json.dumps(body))
