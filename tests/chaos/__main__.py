"""`python -m tests.chaos`: faults under load, for minutes (`make chaos`) or hours (`make soak`)."""

import asyncio
import json
import signal
import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter

from tests.chaos.report import Report, open_report
from tests.chaos.run import RunSettings, run

app = App(
    name="python -m tests.chaos",
    help="Runs the system under load and faults; exits with status 1 if a check does not hold.",
)


@app.default
def main(settings: Annotated[RunSettings, Parameter(name="*")] = RunSettings()) -> None:  # noqa: B008
    """Runs the system under load and faults; Ctrl-C and SIGTERM end it, and its processes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with open_report(settings.out) as file:
        report = Report(file)
        report.write("begin", json.loads(json.dumps(asdict(settings), default=str)))
        if asyncio.run(run(settings, report)):
            sys.exit(1)


if __name__ == "__main__":
    try:
        app()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
