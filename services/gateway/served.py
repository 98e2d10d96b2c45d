"""What the orchestrator serves, asked for once in a while: preset, side, default steps."""

import asyncio
import time
from dataclasses import dataclass

import grpc
from muse_client import AsyncMuseClient, Unavailable

KEPT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """What the stages serve.

    Attributes:
        preset: Name of the system.
        side_px: Side of new pictures, in pixels.
        base_steps: Steps of base by default.
    """

    preset: str
    side_px: int
    base_steps: int


class ServedSystem:
    """Asks the orchestrator what it serves; an answer holds for `KEPT_S`."""

    def __init__(self, client: AsyncMuseClient) -> None:
        """Asks by a client, with that client's credential."""
        self._client, self._lock = client, asyncio.Lock()
        self._kept: tuple[float, Served] | None = None

    async def current(self) -> Served:
        """Returns what is served.

        Raises:
            MuseError: the orchestrator or one of its stages cannot be reached.
        """
        async with self._lock:  # a crowd asks once
            if self._kept is None or time.monotonic() - self._kept[0] > KEPT_S:
                self._kept = time.monotonic(), await self._asked()
            return self._kept[1]

    async def _asked(self) -> Served:
        answer = await self._client.status()
        away = [each for each in answer.stages if not each.serving]
        if away or not answer.side_px:
            why = ", ".join(f"{each.stage} ({each.unavailable_reason})" for each in away)
            raise Unavailable(
                grpc.StatusCode.UNAVAILABLE, f"not all stages serve: {why or 'tokenizer'}"
            )
        base = next(each for each in answer.stages if each.stage == "base")
        return Served(
            preset=base.status.preset, side_px=answer.side_px, base_steps=base.defaults.steps
        )
