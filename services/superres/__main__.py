"""The server of superres: `python -m services.superres --checkpoints checkpoints/demo`."""

from dataclasses import dataclass

from services.masked.settings import MaskedSettings
from services.runtime.server.process import Service, command_line, run_command_line
from services.stages import STAGES


@dataclass(frozen=True, kw_only=True)
class Settings(MaskedSettings):
    """Settings of the superres server.

    Attributes:
        port: Port to listen on; 0 takes a free one.
    """

    port: int = STAGES["superres"].port


async def build(settings: Settings) -> Service:
    """Loads the checkpoint; errors as of `masked_service`."""
    # Imported here, so that --help loads no JAX.
    from services.masked.process import masked_service
    from services.superres.spec import SUPERRES

    return await masked_service(SUPERRES, settings)


app = command_line(
    "superres",
    "Serves the super-resolution transformer: low-resolution tokens to high-resolution ones.",
    Settings,
    build,
)


if __name__ == "__main__":
    run_command_line(app)
