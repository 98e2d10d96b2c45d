"""What the orchestrator serves, asked for once in a while: preset, side, default steps."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from muse.common.v1.decoding_pb2 import Sampling
from muse_client import AsyncMuseClient, Unavailable

KEPT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """What the stages serve.

    Attributes:
        preset: Name of the system.
        side_px: Side of new pictures, in pixels.
        defaults: Sampling parameters of base and superres where a request has none, by stage.
    """

    preset: str
    side_px: int
    defaults: Mapping[str, Mapping[str, float]]


class ServedSystem:
    """Asks the orchestrator what it serves; an answer holds for `KEPT_S`."""

    def __init__(self, client: AsyncMuseClient) -> None:
        """Asks by a client, with that client's credential."""
        self._client = client
        self._asking: asyncio.Task[Served] | None = None  # under way, or answered
        self._asked_s = 0.0

    async def current(self) -> Served:
        """Returns what is served.

        Raises:
            MuseError: the orchestrator or one of its stages cannot be reached.
        """
        asking = self._asking
        if asking is None or (asking.done() and not self._holds(asking)):
            self._asking = asking = asyncio.create_task(self._asked())
            self._asked_s = time.monotonic()
        return await asyncio.shield(asking)  # a crowd asks once, and who leaves it takes nothing

    def _holds(self, asked: asyncio.Task[Served]) -> bool:
        failed = asked.cancelled() or asked.exception() is not None
        return not failed and time.monotonic() - self._asked_s <= KEPT_S

    async def _asked(self) -> Served:
        answer = await self._client.status()
        away = [each for each in answer.stages if not each.serving]
        if away or not answer.side_px:
            why = ", ".join(f"{each.stage} ({each.unavailable_reason})" for each in away)
            raise Unavailable(
                grpc.StatusCode.UNAVAILABLE, f"not all stages serve: {why or 'tokenizer'}"
            )
        base = next(each for each in answer.stages if each.stage == "base")
        defaults = {
            each.stage: _given(each.defaults) for each in answer.stages if each.HasField("defaults")
        }
        return Served(preset=base.status.preset, side_px=answer.side_px, defaults=defaults)


def _given(sampling: Sampling) -> Mapping[str, float]:
    return {field.name: value for field, value in sampling.ListFields()}
