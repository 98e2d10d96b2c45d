"""The command line: `muse up`, `muse generate`, `muse status`, `muse describe`."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

DEFAULT = "127.0.0.1:50050"
app = App(name="muse", help="Text to image by masked generative transformers.")
app.command(
    "services.description.command:describe",  # by name: the orchestrator imports no JAX
    name="describe",
    help="Says what every stage of a preset is and the least it costs on a chip.",
)


@app.command
def up(*, checkpoints: Path = Path("checkpoints/demo"), base_port: int = 50050) -> None:
    """Starts the five servers; Ctrl-C stops them."""
    import signal

    from services.orchestrator.processes import check_alive, servers

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log = Path("out/muse.log")
    try:
        with servers(checkpoints, base_port, log) as running:
            print(f"serving on 127.0.0.1:{base_port}; log in {log}")
            while True:
                check_alive(running, log)
                time.sleep(0.5)
    except KeyboardInterrupt:
        print("stopped")


@app.command
def generate(
    prompt: str,
    *,
    negative_prompt: Annotated[str, Parameter(name="--negative-prompt")] = "",
    seed: int | None = None,
    count: int = 1,
    guidance: float | None = None,
    steps: int | None = None,
    superres_steps: int | None = None,
    temperature: float | None = None,
    out: Path = Path("out/muse.png"),
    server: str | None = None,
    checkpoints: Path = Path("checkpoints/demo"),
) -> None:
    """Generates pictures; starts the servers for this call if none is at the default address."""
    from muse.common.v1.decoding_pb2 import Sampling

    from services.orchestrator.client import MuseClient
    from services.orchestrator.processes import servers, serving

    if out.suffix.lower() != ".png":
        raise ValueError(f"out: expected a name that ends in .png, got {out}")
    with ExitStack() as stack:
        if server is None and not serving(DEFAULT):
            stack.enter_context(servers(checkpoints, 50050, Path("out/muse.log")))
        client = stack.enter_context(MuseClient(server or DEFAULT))
        for event in client.events(
            prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            count=count,
            base=Sampling(steps=steps, guidance=guidance, temperature=temperature),
            superres=Sampling(steps=superres_steps, guidance=guidance, temperature=temperature),
        ):
            if event.WhichOneof("event") == "image":
                made = event.image
                file = out if count == 1 else out.with_stem(f"{out.stem}-{made.index}")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(made.png)
                print(f"{file}  seed {made.seed}")
                for row in made.timings:
                    print(
                        f"  {row.stage:13} queue {row.queue_s * 1e3:8.1f} ms  "
                        f"compute {row.compute_s * 1e3:8.1f} ms  "
                        f"transfer {row.transfer_s * 1e3:8.1f} ms"
                    )


@app.command
def status(*, server: str = DEFAULT, json: bool = False) -> None:
    """Says how every stage is."""
    from google.protobuf.json_format import MessageToJson

    from services.orchestrator.client import MuseClient

    with MuseClient(server) as client:
        answer = client.status()
    if json:
        print(MessageToJson(answer, preserving_proto_field_name=True))
        return
    for row in answer.stages:
        health = "serving" if row.serving else row.problem or "not serving"
        print(f"{row.stage:13} {row.address:18} {health}  {row.status.preset} {row.status.device}")


def main() -> None:
    """Runs the command line; a failure is one line and a non-zero exit."""
    from services.runtime.errors import RequestError

    try:
        app()
    except (RequestError, ValueError, OSError, RuntimeError) as error:
        sys.exit(f"muse: {error}")
