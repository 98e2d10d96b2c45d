"""`python -m services.text_encoder`: the text encoder's server."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from services.runtime.checkpoints.precision import Weights
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.server.jax_setup import prepare_jax
from services.runtime.server.process import Service, command_line, run_command_line, run_server
from services.runtime.server.settings import BatchedServerSettings
from services.stages import STAGES

app = command_line("services.text_encoder", "Serves a T5 text encoder: texts to embeddings.")


@dataclass(frozen=True, kw_only=True)
class Settings(BatchedServerSettings):
    """What the text encoder's server can be told.

    Attributes:
        checkpoints: Root of the checkpoints; its folder text_encoder is served.
        encoder: Serve this instead: a folder in Hugging Face's layout, or a hub id such as
            google/flan-t5-xxl.
        dtype: Of parameters and arithmetic.
        weights: int8 keeps the matrices of the layers in a byte a number.
    """

    checkpoints: Path = Path("checkpoints/demo")
    encoder: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    weights: Weights = "full"
    port: int = STAGES["text_encoder"].port


async def build(settings: Settings) -> Service:
    """Loads the encoder on the device thread."""
    prepare_jax(settings.compilation_cache)
    from services.text_encoder.engine import TextEncoderEngine  # after JAX was told where to cache
    from services.text_encoder.servicer import text_encoder_service

    device = DeviceThread()
    engine, _ = await device.run(
        TextEncoderEngine.load,
        settings.encoder or settings.checkpoints / "text_encoder",
        max_batch_size=settings.max_batch_size,
        dtype=settings.dtype,
        weights=settings.weights,
    )
    return text_encoder_service(engine, device, settings)


@app.default
def main(settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:
    """Serves a T5 text encoder: texts to embeddings.

    Args:
        settings: Flags, or MUSE_ environment variables.
    """
    run_server(partial(build, settings), settings, name="text_encoder")


if __name__ == "__main__":
    run_command_line(app)
