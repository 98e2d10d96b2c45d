"""Services that compute on a device: an engine on its thread, a batcher, and a servicer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from services.runtime.scheduling.batching import Batcher
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.inflight import InflightBatcher
from services.runtime.server.jax_setup import prepare_jax
from services.runtime.server.process import Service
from services.runtime.server.settings import StageSettings


class Engine(Protocol):
    """A loaded model. One thread uses it."""

    def warm_up(self) -> None:
        """Compiles every program; nothing compiles afterwards."""


EngineType = TypeVar("EngineType", bound=Engine)
BatcherType = TypeVar("BatcherType", bound=Batcher[Any, Any] | InflightBatcher[Any, Any])


async def device_service(
    name: str,
    settings: StageSettings,
    *,
    load: Callable[[], EngineType],
    batcher_of: Callable[[EngineType, DeviceThread], BatcherType],
    servicer_of: Callable[[EngineType, BatcherType], object],
) -> Service:
    """Loads an engine and wires device thread, batcher and servicer.

    Args:
        name: Name of the stage.
        settings: Settings of its server.
        load: Loads the engine, on the device thread; its errors are raised.
        batcher_of: Makes the batcher of the engine.
        servicer_of: Makes the servicer.

    Raises:
        ValueError: the server is to compile only, and its folder cannot be created.
    """
    prepare_jax(settings.compilation_cache, required=settings.compile_only)
    device = DeviceThread()
    engine, _ = await device.run(load)
    batcher = batcher_of(engine, device)

    async def warm_up() -> None:
        await device.run(engine.warm_up)

    async def close() -> None:
        await batcher.drain()
        device.close()

    service = Service(
        name=name,
        servicer=servicer_of(engine, batcher),
        warm_up=warm_up,
        close=close,
        load=batcher.load,
    )
    if isinstance(batcher, InflightBatcher):
        return replace(service, preempt=batcher.preempt, health=batcher.health)
    return service
