"""The command line: `muse up`, `generate`, four edits, `status`, `describe`, `bench`, `plan`,
`deploy`.

Each command imports what it needs when it is called, so that `muse --help` is instant.
"""

import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from services.runtime.checkpoints.precision import Weights
from services.runtime.version import package_version
from services.stages import ORCHESTRATOR_PORT
from tools.cli.options import DEFAULTS, CommandOptions

app = App(
    name="muse", help="Text to image by masked generative transformers.", version=package_version
)
app.command(
    "tools.description.command:describe",  # by name: the orchestrator imports no JAX
    name="describe",
    help="Says what every stage of a preset is and the least it costs on a chip.",
)
app.command(
    "tools.bench.command:bench",
    name="bench",
    help="Loads a running system with requests that arrive by themselves, and measures it.",
)
app.command(
    "tools.planning.command:plan",
    name="plan",
    help="Says how many replicas and chips each stage needs for a load; simulates that fleet.",
)
app.command(
    "tools.cli.deploy_commands:app",
    name="deploy",
    help="Renders an overlay of k8s/, applies it, and says how it is.",
)
for _name, _help in {
    "inpaint": "Repaints what a mask covers; every other pixel stays as it is.",
    "outpaint": "Paints beyond the borders of a picture, which itself stays as it is.",
    "edit": "Changes a picture towards a prompt without a mask.",
    "vary": "Paints a share of a picture anew.",
}.items():
    app.command(f"tools.cli.edit_commands:{_name}", name=_name, help=_help)


@app.command
def up(
    *,
    preset: str | None = None,
    checkpoints: Path | None = None,
    base_port: int = ORCHESTRATOR_PORT,
    replicas: tuple[str, ...] = (),
    mesh: str | None = None,
    weights: Weights | None = None,
) -> None:
    """Runs what is deployed, k8s/overlays/local-cpu, as processes of this machine.

    Ctrl-C or SIGTERM stops them: each goes on for 5 s, then drains; again, and they end at once.

    Parameters
    ----------
    preset
        Which system: what is in checkpoints/PRESET, "demo" by default. Checkpoints of another
        preset are refused.
    checkpoints
        Folder of checkpoints instead.
    base_port
        Port of the orchestrator on 127.0.0.1; the stages have the next four.
    replicas
        Servers of a stage, such as "base=3"; one of each by default.
    mesh
        Devices of this host that base and superres are each spread over, such as "model=4".
    weights
        How text encoder, base and superres keep their matrices; int8 takes a byte a number.
    """
    import signal

    from tools.local import local_stack, parse_replicas, stage_flags

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = checkpoints or Path("checkpoints") / (preset or "demo")
    try:
        with local_stack(
            folder,
            sys.stderr,
            flags=stage_flags(mesh=mesh, weights=weights),
            replicas=parse_replicas(replicas),
            base_port=base_port,
            pre_stop=True,
        ) as stack:
            if preset is not None:
                _check_preset(stack.address, preset)
            print(f"serving on 127.0.0.1:{base_port}", flush=True)
            while True:
                stack.check()
                time.sleep(0.5)
    except KeyboardInterrupt:
        print("stopped", flush=True)


def _check_preset(address: str, preset: str) -> None:
    from muse_client import MuseClient

    with MuseClient(address) as client:
        found = {report.stage: report.status.preset for report in client.status().stages}
    if found["base"] != preset:  # the other stages may be shared between presets
        raise ValueError(f"preset: expected checkpoints of {preset!r}, got those of {found}")


@app.command
def generate(
    prompt: str, *, options: Annotated[CommandOptions, Parameter(name="*")] = DEFAULTS
) -> None:
    """Generates pictures; starts the servers for this call if none is at the default address.

    Parameters
    ----------
    prompt
        What the pictures show.
    """
    from tools.cli.generation import paint_files

    paint_files(prompt, options.generate_options(), options)


@app.command
def status(*, server: str = f"127.0.0.1:{ORCHESTRATOR_PORT}", json: bool = False) -> int:
    """Says how every stage is; exits with 1 unless all of them serve.

    Parameters
    ----------
    server
        Address of an orchestrator, HOST:PORT.
    json
        Print JSON rather than a table.
    """
    from google.protobuf.json_format import MessageToJson
    from muse_client import MuseClient

    with MuseClient(server) as client:
        answer = client.status()
    if json:
        print(
            MessageToJson(
                answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )
    else:
        from rich.console import Console

        from tools.cli.rendering import status_table

        Console().print(status_table(answer))
    return 0 if all(report.serving for report in answer.stages) else 1


def main() -> None:
    """Runs the command line; a failure is one line and a non-zero exit."""
    from muse_client import MuseError

    from services.runtime.wire.errors import RequestError

    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (MuseError, RequestError, ValueError, OSError, RuntimeError) as error:
        sys.exit(f"muse: {error}")
