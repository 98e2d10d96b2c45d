"""Commands that paint: a server is asked, or one started for this call, and pictures written."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest
from muse_client import (
    DEFAULT_ADDRESS,
    Event,
    Finished,
    MuseClient,
    Picture,
    Started,
    Step,
    Wanted,
)
from muse_client.calls import generate_request
from muse_client.events import in_order
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.orchestrator.edits import read_source, result_pixels
from services.orchestrator.edits.limits import kept_of
from services.orchestrator.requests import checked
from tools.cli.image_files import check_suffix, save_picture, save_sheet
from tools.cli.options import Knobs
from tools.cli.previews import Watcher
from tools.cli.rendering import timing_table, waterfall_lines
from tools.cli.waterfall_page import write_page
from tools.local import check_checkpoints, local_stack, serving

LOG = Path("out/muse.log")


def paint_files(prompt: str, wanted: Wanted, knobs: Knobs) -> None:
    """Generates or edits pictures into files and prints where the time went.

    A server is asked at the address of the knobs; without one at the default address, or, where
    nothing serves there, five servers started for this call.

    Args:
        prompt: What they show.
        wanted: What else the request says.
        knobs: Where to write and whom to ask.

    Raises:
        RequestError: the request is refused; as far as can be told, before anything is started.
        ValueError: the file to write is of no format we write.
        RuntimeError: a server that was started for this call died.
    """
    check_suffix(knobs.out)
    if knobs.trace_html is not None and knobs.trace_html.suffix != ".html":
        raise ValueError(f"trace_html: expected a name that ends in .html, got {knobs.trace_html}")
    watcher = Watcher(folder=knobs.preview_dir, filmstrip=knobs.filmstrip, animation=knobs.animate)
    request = checked(generate_request(prompt, wanted, progress=True))
    if request.WhichOneof("edit"):
        result_pixels(request)
        read_source(request)
    messages, server = Console(stderr=True), knobs.server
    with ExitStack() as stack:
        stack.enter_context(_terminated_as_interrupted())
        if server is None and not serving(DEFAULT_ADDRESS):
            server = stack.enter_context(_embedded(knobs.checkpoints, messages))
        client = stack.enter_context(MuseClient(server or DEFAULT_ADDRESS))
        events = client.events(prompt, **wanted)
        pictures, total_s = _collect(events, request, knobs.out, messages, watcher)
    console = Console()
    if len(pictures) > 1:
        sheet = knobs.out.with_stem(f"{knobs.out.stem}-sheet")
        save_sheet(pictures, sheet)
        console.print(f"{sheet}  all of them", highlight=False)
    for file in watcher.finish(pictures):
        console.print(f"{file}  as it formed", highlight=False)
    console.print(timing_table(pictures, total_s))
    if knobs.trace:
        for picture in pictures:
            for line in waterfall_lines(picture, max(72, console.width)):
                console.print(line, highlight=False)
    if knobs.trace_html is not None:
        write_page(knobs.trace_html, pictures, total_s, prompt)
        console.print(f"{knobs.trace_html}  where the time went", highlight=False)


def _collect(
    events: Iterator[Event],
    request: GenerateRequest,
    out: Path,
    messages: Console,
    watcher: Watcher,
) -> tuple[list[Picture], float]:
    """Writes each picture as it comes; returns all in order, and the seconds they took."""
    pictures: list[Picture] = []
    total_s = 0.0
    kept = len(kept_of(request.mask_free_edit)) if request.HasField("mask_free_edit") else 1
    with _progress(messages) as progress:
        bars = {}
        for event in events:
            if isinstance(event, Step):
                if event.stage not in bars:
                    total = event.total * event.parts * (request.best_of or request.count)
                    bars[event.stage] = progress.add_task(event.stage, total=total)
                progress.advance(bars[event.stage])
                watcher.add(event)
            elif isinstance(event, Picture):
                file = _file_of(event, out, several=request.count > 1, kept=kept > 1)
                save_picture(event, file)
                score = "" if event.score is None else f"  score {event.score:.4f}"
                progress.console.print(f"{file}  seed {event.seed}{score}", highlight=False)
                pictures.append(event)
            elif isinstance(event, Finished):
                total_s = event.total_s
            else:
                assert isinstance(event, Started)
    return in_order(pictures), total_s


def _file_of(picture: Picture, out: Path, *, several: bool, kept: bool) -> Path:
    """Returns a picture's file: numbered where there are several, with its iteration if kept."""
    place = picture.index if picture.rank is None else picture.rank
    index = f"-{place}" if several else ""
    iteration = f"-after-{picture.iteration}" if kept else ""
    return out.with_stem(f"{out.stem}{index}{iteration}")


@contextmanager
def _embedded(checkpoints: Path, messages: Console) -> Iterator[str]:
    """Runs the five servers for one call; yields the address."""
    check_checkpoints(checkpoints)  # before a log is made
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("w") as log, ExitStack() as stack:
        with messages.status(f"starting five servers with {checkpoints}; log in {LOG}"):
            running = stack.enter_context(local_stack(checkpoints, log))
        yield running.address


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
