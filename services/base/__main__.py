"""The server of base: `python -m services.base --checkpoints checkpoints/demo`."""

from dataclasses import dataclass

from services.masked.settings import MaskedSettings
from services.runtime.server.process import Service, command_line, run_command_line
from services.stages import STAGES


@dataclass(frozen=True, kw_only=True)
class Settings(MaskedSettings):
    """Settings of the base server.

    Attributes:
        port: Port to listen on; 0 takes a free one.
    """

    port: int = STAGES["base"].port


async def build(settings: Settings) -> Service:
    """Loads the checkpoint; errors as of `masked_service`."""
    # Imported here, so that --help loads no JAX.
    from services.base.spec import BASE
    from services.masked.process import masked_service

    return await masked_service(BASE, settings)


app = command_line(
    "base", "Serves the base transformer: text to low-resolution tokens.", Settings, build
)


if __name__ == "__main__":
    run_command_line(app)
