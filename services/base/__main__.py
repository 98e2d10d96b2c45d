"""The server of the base stage: `python -m services.base --checkpoints checkpoints/demo`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from services.masked.settings import MaskedSettings
from services.runtime.server.process import Service, command_line, run_command_line, run_server
from services.stages import STAGES

app = command_line("services.base", "Serves the base transformer: text to low-resolution tokens.")


@dataclass(frozen=True, kw_only=True)
class Settings(MaskedSettings):
    """Settings of the base server.

    Attributes:
        checkpoints: Folder whose subfolder `base` holds the checkpoint.
        port: Port to listen on; 0 takes a free one.
    """

    checkpoints: Path
    port: int = STAGES["base"].port


async def build(settings: Settings) -> Service:
    """Loads the checkpoint and wires engine, device thread, batcher and servicer.

    Raises:
        CheckpointError: there is no checkpoint, or it is of another stage or shape.
        ValueError: the mesh is not one, or has not the devices or the memory this takes.
    """
    # Imported here: what only asks for --help does without JAX.
    from muse.base.v1.base_pb2_grpc import add_BaseServiceServicer_to_server

    from services.base.engine import STAGE, BaseEngine
    from services.base.servicer import FULL_NAME, BaseServicer
    from services.decoding.serving import layout_here
    from services.runtime.scheduling.device_thread import DeviceThread
    from services.runtime.scheduling.inflight import InflightBatcher
    from services.runtime.server.jax_setup import prepare_jax

    prepare_jax(settings.compilation_cache)
    device = DeviceThread()
    folder = settings.checkpoints / STAGE
    layout = layout_here(settings.max_batch_size, shards=settings.shards, weights=settings.weights)
    engine = (await device.run(BaseEngine.load, folder, layout))[0]
    batcher = InflightBatcher(engine.pool, device, max_queued=settings.max_queued)
    servicer = BaseServicer(engine, batcher)

    async def warm_up() -> None:
        await device.run(engine.warm_up)

    async def close() -> None:
        await batcher.drain()
        device.close()

    return Service(
        name=STAGE,
        full_name=FULL_NAME,
        register=lambda server: add_BaseServiceServicer_to_server(servicer, server),
        warm_up=warm_up,
        close=close,
        preempt=batcher.preempt,
        health=batcher.health,
        load=batcher.load,
    )


@app.default
def main(settings: Annotated[Settings, Parameter(name="*")]) -> None:
    """Serves until SIGTERM."""
    run_server(lambda: build(settings), settings, name="base")


if __name__ == "__main__":
    run_command_line(app)
