"""Server process of a masked stage: loads its checkpoint and wires its parts."""

from services.decoding.serving import default_serving_config
from services.masked.engine import MaskedEngine
from services.masked.servicer import MaskedServicer
from services.masked.settings import MaskedSettings
from services.masked.spec import Config, MaskedSpec
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.inflight import InflightBatcher
from services.runtime.server.jax_setup import prepare_jax
from services.runtime.server.process import Service


async def masked_service(spec: MaskedSpec[Config], settings: MaskedSettings) -> Service:
    """Loads a checkpoint and wires engine, device thread, batcher and servicer.

    Raises:
        CheckpointError: there is no checkpoint, or it is of another stage or shape.
        ValueError: the mesh is malformed, or its devices are missing, cannot share the transformer
            evenly, or have too little memory.
    """
    prepare_jax(settings.compilation_cache)
    serving = default_serving_config(
        settings.max_batch_size, shards=settings.shards, weights=settings.weights
    )
    device = DeviceThread()
    folder = settings.checkpoints / spec.name
    engine, _ = await device.run(MaskedEngine[Config].load, spec, folder, serving)
    batcher = InflightBatcher(engine.pool, device, max_queued=settings.max_queued)
    servicer = MaskedServicer(engine, batcher)

    async def warm_up() -> None:
        await device.run(engine.warm_up)

    async def close() -> None:
        await batcher.drain()
        device.close()

    return Service(
        name=spec.name,
        servicer=servicer,
        warm_up=warm_up,
        close=close,
        preempt=batcher.preempt,
        health=batcher.health,
        load=batcher.load,
    )
