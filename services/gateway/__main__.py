"""The gateway: `python -m services.gateway`."""

import sys
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.config import Env

from services.gateway.process import run_gateway
from services.gateway.settings import GatewaySettings as Settings
from services.runtime.version import package_version

app = App(
    name="python -m services.gateway",
    help="Serves OpenAI's images API, and Muse's own, over an orchestrator.",
    version=package_version,
    config=Env("MUSE_", command=False),
)


DEFAULTS = Settings()


@app.default
def main(settings: Annotated[Settings, Parameter(name="*")] = DEFAULTS) -> None:
    """Serves until SIGTERM."""
    run_gateway(settings)


if __name__ == "__main__":
    try:
        app()
    except ValueError as error:
        sys.exit(f"error: {error}")
