"""Server-sent events: a stream that begins once the request was accepted, and stays awake."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from muse_client import Event
from starlette.requests import Request
from starlette.responses import StreamingResponse

from services.gateway.disconnects import unless_gone

PING_S = 15.0
MEDIA_TYPE = "text/event-stream"
Events = AsyncGenerator[Event, None]


async def begun(request: Request, events: Events) -> Events:
    """Returns the events of a request after the first has come.

    So what is refused at its arrival has a status of its own, as without a stream.

    Args:
        request: Its body has been read.
        events: Of the request that was sent on.

    Raises:
        ClientDisconnect: the caller went away.
        MuseError: the request was refused.
    """
    return _after(await unless_gone(request, anext(events)), events)


def event_stream(sent: AsyncIterator[bytes]) -> StreamingResponse:
    """Returns the answer that sends events as they come, through proxies too."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(sent, media_type=MEDIA_TYPE, headers=headers)


async def _after(first: Event, events: Events) -> Events:
    try:
        yield first
        async for event in events:
            yield event
    finally:
        await events.aclose()


async def with_pings(events: Events) -> AsyncGenerator[Event | None, None]:
    """Yields the events, and None whenever none came for `PING_S`."""
    async with aclosing(events):
        following: asyncio.Task[Event] | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(events))
                await asyncio.wait((following,), timeout=PING_S)
                if not following.done():
                    yield None
                    continue
                try:
                    event = following.result()
                except StopAsyncIteration:
                    return
                following = None
                yield event
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
