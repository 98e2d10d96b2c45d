"""The superres stage's server: `python -m services.superres --checkpoints checkpoints/demo`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from services.masked.settings import MaskedSettings
from services.runtime.server.process import Service, command_line, run_command_line, run_server
from services.stages import STAGES

app = command_line(
    "services.superres",
    "Serves the super-resolution transformer: low-resolution tokens to high-resolution ones.",
)


@dataclass(frozen=True, kw_only=True)
class Settings(MaskedSettings):
    """Settings of the superres server.

    Attributes:
        checkpoints: Folder whose subfolder `superres` holds the checkpoint.
        port: Port to listen on; 0 takes a free one.
    """

    checkpoints: Path
    port: int = STAGES["superres"].port


async def build(settings: Settings) -> Service:
    """Loads the checkpoint and wires engine, device thread, batcher and servicer.

    Raises:
        CheckpointError: there is no checkpoint, or it is of another stage or shape.
        ValueError: the mesh is not one, or has not the devices or the memory this takes.
    """
    # Imported here: what only asks for --help does without JAX.
    from muse.superres.v1.superres_pb2_grpc import add_SuperresServiceServicer_to_server

    from services.decoding.serving import layout_here
    from services.runtime.scheduling.device_thread import DeviceThread
    from services.runtime.scheduling.inflight import InflightBatcher
    from services.runtime.server.jax_setup import prepare_jax
    from services.superres.engine import STAGE, SuperresEngine
    from services.superres.servicer import FULL_NAME, SuperresServicer

    prepare_jax(settings.compilation_cache)
    device = DeviceThread()
    folder = settings.checkpoints / STAGE
    layout = layout_here(settings.max_batch_size, shards=settings.shards, weights=settings.weights)
    engine = (await device.run(SuperresEngine.load, folder, layout))[0]
    batcher = InflightBatcher(engine.pool, device, max_queued=settings.max_queued)
    servicer = SuperresServicer(engine, batcher)

    async def warm_up() -> None:
        await device.run(engine.warm_up)

    async def close() -> None:
        await batcher.drain()
        device.close()

    return Service(
        name=STAGE,
        full_name=FULL_NAME,
        register=lambda server: add_SuperresServiceServicer_to_server(servicer, server),
        warm_up=warm_up,
        close=close,
        preempt=batcher.preempt,
        health=batcher.health,
        load=batcher.load,
    )


@app.default
def main(settings: Annotated[Settings, Parameter(name="*")]) -> None:
    """Serves until SIGTERM."""
    run_server(lambda: build(settings), settings, name="superres")


if __name__ == "__main__":
    run_command_line(app)
