"""`muse generate`: asks a server, or one started for this call, and writes the pictures."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.orchestrator.addresses import DEFAULT_ADDRESS
from services.orchestrator.client import (
    Event,
    Finished,
    MuseClient,
    Picture,
    Started,
    Step,
    Wanted,
)
from services.orchestrator.client.calls import generate_request
from services.orchestrator.files import check_suffix, save_picture, save_sheet
from services.orchestrator.processes import check_checkpoints, free_ports, servers, serving
from services.orchestrator.rendering import timing_table
from services.orchestrator.requests import checked

LOG = Path("out/muse.log")


def generate_files(
    prompt: str, wanted: Wanted, *, out: Path, server: str | None, checkpoints: Path
) -> None:
    """Generates pictures into files and prints where the time went.

    Args:
        prompt: What they show.
        wanted: What else the request says.
        out: File of one picture; several get numbers before the suffix, and a sheet of all.
        server: Address of the orchestrator. None: the default address, or, where nothing serves
            there, five servers started for this call.
        checkpoints: What such servers serve.

    Raises:
        RequestError: the request is refused; as far as can be told, before anything is started.
        ValueError: `out` is of no format we write.
        RuntimeError: a server that was started for this call died.
    """
    check_suffix(out)
    request = checked(generate_request(prompt, wanted, progress=True))
    messages = Console(stderr=True)
    with ExitStack() as stack:
        stack.enter_context(_terminated_as_interrupted())
        if server is None and not serving(DEFAULT_ADDRESS):
            server = stack.enter_context(_embedded(checkpoints, messages))
        client = stack.enter_context(MuseClient(server or DEFAULT_ADDRESS))
        pictures, total_s = _collect(client.events(prompt, **wanted), request, out, messages)
    console = Console()
    if len(pictures) > 1:
        sheet = out.with_stem(f"{out.stem}-sheet")
        save_sheet(pictures, sheet)
        console.print(f"{sheet}  all of them", highlight=False)
    console.print(timing_table(pictures, total_s))


def _collect(
    events: Iterator[Event], request: GenerateRequest, out: Path, messages: Console
) -> tuple[list[Picture], float]:
    """Writes each picture as it comes; returns all in order, and the seconds they took."""
    pictures: list[Picture] = []
    total_s = 0.0
    with _progress(messages) as progress:
        bars = {}
        for event in events:
            if isinstance(event, Step):
                if event.stage not in bars:
                    total = event.total * request.count
                    bars[event.stage] = progress.add_task(event.stage, total=total)
                progress.advance(bars[event.stage])
            elif isinstance(event, Picture):
                numbered = out.with_stem(f"{out.stem}-{event.index}")
                file = numbered if request.count > 1 else out
                save_picture(event, file)
                progress.console.print(f"{file}  seed {event.seed}", highlight=False)
                pictures.append(event)
            elif isinstance(event, Finished):
                total_s = event.total_s
            else:
                assert isinstance(event, Started)
    return sorted(pictures, key=lambda picture: picture.index), total_s


@contextmanager
def _embedded(checkpoints: Path, messages: Console) -> Iterator[str]:
    """Runs the five servers for one call, on ports that are free; yields the address."""
    check_checkpoints(checkpoints)  # before a log is made
    ports = free_ports()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("w") as log, ExitStack() as stack:
        with messages.status(f"starting five servers with {checkpoints}; log in {LOG}"):
            stack.enter_context(servers(checkpoints, ports, log))
        yield f"127.0.0.1:{ports['orchestrator']}"


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Takes SIGTERM as Ctrl-C, so that whatever was started is stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>13}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
