"""Answers of Muse's own REST: whole, or as server-sent events with every step."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import muse_client
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from muse_client import Event, MuseError
from muse_client.events import in_order
from pydantic import BaseModel

from services.gateway.errors import api_error
from services.gateway.native.models import (
    EVENTS,
    Accepted,
    Done,
    GeneratedImage,
    Images,
    Progress,
    RequestWarning,
    StageTiming,
    Step,
)
from services.gateway.native.requests import ImageRequest
from services.gateway.openapi import ErrorBody
from services.gateway.pictures import encoded, sides_of
from services.gateway.streams import Events, with_pings


async def whole(events: Events, request: ImageRequest) -> Images:
    """Returns the answer that has every picture.

    Raises:
        MuseError: the request failed.
    """
    async with aclosing(events):
        received = [event async for event in events]
    images = in_order([each for each in received if isinstance(each, muse_client.GeneratedImage)])
    warnings = [_warning(each) for each in received if isinstance(each, muse_client.RequestWarning)]
    accepted, done = received[0], received[-1]
    assert isinstance(accepted, muse_client.Accepted)
    assert isinstance(done, muse_client.Done)
    return Images(
        **_done(done).model_dump(),
        seed=accepted.seed,
        images=[await _image(each, request) for each in images],
        warnings=warnings,
    )


async def streamed(events: Events, request: ImageRequest) -> AsyncIterator[bytes]:
    """Yields server-sent events: those of the gRPC API, or `error` as the last one."""
    async with aclosing(with_pings(events)) as waiting:
        try:
            async for event in waiting:
                yield KEEPALIVE_COMMENT if event is None else _sent(await _data(event, request))
        except MuseError as error:
            yield _sent(ErrorBody.model_validate(api_error(error).body))


async def _data(event: Event, request: ImageRequest) -> BaseModel:
    """Returns what a stream sends of an event."""
    match event:
        case muse_client.Accepted():
            return Accepted(seed=event.seed, count=event.count)
        case muse_client.RequestWarning():
            return _warning(event)
        case muse_client.Progress():
            return await _progress(event, request)
        case muse_client.GeneratedImage():
            return await _image(event, request)
        case muse_client.Done():
            return _done(event)


def _warning(event: muse_client.RequestWarning) -> RequestWarning:
    return RequestWarning(reason=event.reason, message=event.message, words=list(event.words))


def step_of(event: muse_client.Progress) -> Step:
    """Returns the step that an event tells of."""
    return Step(
        index=event.index,
        stage=event.stage,
        step=event.step,
        total=event.total,
        part=event.part,
        parts=event.parts,
    )


async def _progress(event: muse_client.Progress, request: ImageRequest) -> Progress:
    preview = None if event.preview is None else await _content(event.preview.png, request)
    return Progress(**step_of(event).model_dump(), preview=preview)


async def _image(event: muse_client.GeneratedImage, request: ImageRequest) -> GeneratedImage:
    width_px, height_px = sides_of(event.file)
    return GeneratedImage(
        index=event.index,
        seed=event.seed,
        iteration=event.iteration,
        rank=event.rank,
        score=event.score,
        safety_score=event.safety_score,
        blurred=event.blurred,
        width_px=width_px,
        height_px=height_px,
        image=await _content(event.file, request),
        timings=[
            StageTiming(
                stage=each.stage,
                queue_s=each.queue_s,
                compute_s=each.compute_s,
                transfer_s=each.transfer_s,
                device_s=each.device_s,
            )
            for each in event.timings
        ],
        overhead_s=event.overhead_s,
        wall_s=event.wall_s,
    )


def _done(event: muse_client.Done) -> Done:
    return Done(
        preset=event.provenance.preset, total_s=event.total_s, device_s=dict(event.device_s)
    )


async def _content(file: bytes, request: ImageRequest) -> str:
    return await encoded(file, request.output_format, request.quality)


def _sent(data: BaseModel) -> bytes:
    name = next(name for name, model in EVENTS.items() if isinstance(data, model))
    return format_sse_event(event=name, data_str=data.model_dump_json(exclude_none=True))
