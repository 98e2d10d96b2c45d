"""The command line `muse`: local servers, generation, edits, status, keys, load, planning.

Each command imports its modules when it is called, so that `muse --help` is instant.
"""

import os
import sys
import time
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from services.runtime.checkpoints.precision import Precision, Weights
from services.runtime.version import package_version
from services.stages import GATEWAY_PORT, ORCHESTRATOR_PORT
from tools.cli.edit_commands import COMMANDS
from tools.cli.options import (
    DEFAULTS,
    PLAIN_TEXT,
    CommandOptions,
    Prompt,
    Server,
    Transport,
)

if TYPE_CHECKING:
    from muse_client import Tls

app = App(
    name="muse", help="Text to image by masked generative transformers.", version=package_version
)
app.command(
    "tools.description.command:describe",  # by name: the orchestrator imports no JAX
    name="describe",
    help="Prints the size of every stage of a preset and its least cost on a chip.",
)
app.command(
    "tools.bench.command:bench",
    name="bench",
    help="Sends open-loop load to running servers and measures them.",
)
app.command(
    "tools.planning.command:plan",
    name="plan",
    help="Computes the replicas and chips that a load needs, and simulates that fleet.",
)
app.command(
    "tools.cli.deploy_commands:app",
    name="deploy",
    help="Checks an overlay of k8s/ before it is applied, and explains what is not ready after.",
)
app.command(
    "tools.cli.key_commands:app",
    name="keys",
    help="Makes API keys of an orchestrator.",
)
app.command(
    "training.public_weights.import_commands:app",  # as `python -m training import`
    name="import",
    help="Writes checkpoints of weights that others have published.",
)
for _command in COMMANDS:
    app.command(_command)
app.register_install_completion_command()


@app.command
def up(
    *,
    preset: str | None = None,
    checkpoints: Path | None = None,
    base_port: int = ORCHESTRATOR_PORT,
    gateway: bool = True,
    gateway_port: int = GATEWAY_PORT,
    replicas: tuple[str, ...] = (),
    mesh: str | None = None,
    weights: Weights | None = None,
    precision: Precision | None = None,
    rows: int | None = None,
    tls: bool = False,
) -> None:
    """Runs the servers of k8s/overlays/local-cpu as processes of this machine.

    Ctrl-C or SIGTERM stops them: each serves for 5 s more, then drains. A second signal kills them.
    Their logs go to standard error: as lines for people in a terminal, else as JSON.

    Parameters
    ----------
    preset
        Preset to serve, from the folder checkpoints/PRESET; "demo" by default. Checkpoints of
        another preset are refused.
    checkpoints
        Folder of checkpoints instead of checkpoints/PRESET; no superres runs if it has neither
        superres nor tokenizer/high.
    base_port
        Port of the orchestrator on 127.0.0.1; the stages have the next four ports.
    gateway
        Start the HTTP gateway, too. It needs the extra "gateway", and MUSE_API_KEY where the
        orchestrator demands keys.
    gateway_port
        Port of the gateway on 127.0.0.1.
    replicas
        Number of servers of a stage, such as "base=3"; one by default.
    mesh
        Mesh of this host's devices for base and for superres, such as "model=4".
    weights
        Storage of the matrices of text encoder, base and superres; int8 takes one byte a number.
    precision
        Type of the factors of every stage's products. By default bfloat16 on accelerators and on
        CPUs that multiply it faster, and float32 on others.
    rows
        Decodes that one call of base's or superres's network computes; 1 by default. More fill a
        device that one decode leaves waiting.
    tls
        Let the servers speak TLS, with certificates that are made for this run. Calls need the
        variables that are printed.
    """
    import signal

    from tools.local import local_stack, parse_replicas, stage_flags

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = checkpoints or Path("checkpoints") / (preset or "demo")
    try:
        with local_stack(
            folder,
            sys.stderr,
            flags=stage_flags(mesh=mesh, weights=weights, precision=precision, rows=rows),
            replicas=parse_replicas(replicas),
            base_port=base_port,
            gateway_port=gateway_port if gateway else None,
            pre_stop=True,
            tls=tls,
        ) as stack:
            if preset is not None:
                _check_preset(stack.address, stack.tls, preset)
            print(f"serving on 127.0.0.1:{base_port}", flush=True)
            if gateway:
                scheme = "http" if stack.tls is None else "https"
                print(f"HTTP on {scheme}://127.0.0.1:{gateway_port}", flush=True)
            if (files := stack.tls) is not None:
                print(
                    f"export MUSE_TLS_CA={files.ca} MUSE_TLS_CERT={files.cert} "
                    f"MUSE_TLS_KEY={files.key}  # for calls",
                    flush=True,
                )
            while True:
                stack.check()
                time.sleep(0.5)
    except KeyboardInterrupt:
        print("stopped", flush=True)


def _check_preset(address: str, tls: "Tls | None", preset: str) -> None:
    from muse_client import MuseClient

    with MuseClient(address, tls=tls) as client:
        found = {report.stage: report.status.preset for report in client.status().stages}
    if found["base"] != preset:  # the other stages may be shared between presets
        raise ValueError(f"preset: expected checkpoints of {preset!r}, got those of {found}")


@app.command
def generate(
    prompt: Prompt, *, options: Annotated[CommandOptions, Parameter(name="*")] = DEFAULTS
) -> None:
    """Generates images; starts servers for this call if none serve at the default address.

    Parameters
    ----------
    prompt
        Description of the images.
    """
    from tools.cli.generation import run_request

    run_request(prompt, options)


@app.command
def status(*, server: Server = None, json: bool = False, transport: Transport = PLAIN_TEXT) -> int:
    """Prints health and status of every stage; exits with 1 unless all stages serve.

    Parameters
    ----------
    server
        Address of an orchestrator, HOST:PORT; 127.0.0.1:50050 by default.
    json
        Print JSON rather than a table.
    """
    from google.protobuf.json_format import MessageToJson
    from muse_client import DEFAULT_ADDRESS, MuseClient

    with MuseClient(server or DEFAULT_ADDRESS, tls=transport.tls()) as client:
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

    from services.runtime.checkpoints.errors import CheckpointError
    from services.runtime.observability.otel_variables import check_variables
    from services.runtime.wire.errors import RequestError

    if isinstance(sys.stdout, TextIOWrapper):  # names of files may be no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        check_variables()
        app()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has gone, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (
        MuseError,
        RequestError,
        CheckpointError,
        ValueError,
        OSError,
        RuntimeError,
    ) as error:
        sys.exit(f"muse: {error}")
