"""Generation and edits from the command line: one request, its files and its timings."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Unpack

from muse_client import (
    DEFAULT_ADDRESS,
    Accepted,
    Done,
    Event,
    GeneratedImage,
    GenerateOptions,
    MuseClient,
    Progress,
    RequestWarning,
    Tls,
)
from muse_client.edits import EditOptions
from muse_client.events import in_order
from muse_client.picture_files import FORMATS
from rich import progress as bars
from rich.console import Console
from rich.text import Text

from tools.cli.image_files import check_file, check_folder, check_suffix, save_picture, save_sheet
from tools.cli.options import CommandOptions
from tools.cli.previews import PreviewFiles
from tools.cli.rendering import timing_table, waterfall_lines
from tools.cli.waterfall_page import write_page
from tools.local import check_checkpoints, local_stack, serving

LOG = Path("out/muse.log")
DEMO = Path("checkpoints/demo")


def run_request(prompt: str, command: CommandOptions, **edit: Unpack[EditOptions]) -> None:
    """Sends a request, which may be an edit, writes its images to files, and prints its timings.

    Without `command.server` the request goes to the default address or, with `command.checkpoints`
    or if no server answers there, to servers that run for this call only.

    Raises:
        MuseError: the server refused the request, or could not be reached.
        ValueError: both server and checkpoints are given, or a file is of no supported format or
            cannot be written.
        RuntimeError: a server that was started for this call ended.
    """
    if command.server is not None and command.checkpoints is not None:
        raise ValueError(
            f"checkpoints: {command.server} has its own; give a server (--server, MUSE_SERVER) or "
            "checkpoints, not both"
        )
    check_suffix("out", command.out)
    check_suffix("trace_html", command.trace_html, (".html",))
    previews = PreviewFiles(
        folder=command.preview_dir, filmstrip=command.filmstrip, animation=command.animate
    )
    options: GenerateOptions = {**command.generate_options(), **edit}
    options["picture_format"] = FORMATS[command.out.suffix.lower()]
    for name in ("out", "trace_html", "filmstrip", "animate"):
        check_file(name, getattr(command, name))
    check_folder("preview_dir", command.preview_dir)
    messages, server, tls = Console(stderr=True), command.server, command.transport.tls()
    with ExitStack() as stack:
        stack.enter_context(_terminated_as_interrupted())
        if server is None:
            found = _found_or_started(command.checkpoints, tls, messages)
            server, tls = stack.enter_context(found)
        client = stack.enter_context(MuseClient(server, tls=tls))
        options |= command.sampling_options(client)
        events = client.events(prompt, **options)
        pictures, total_s = _collect(events, options, command.out, messages, previews)
    console = Console()
    if len(pictures) > 1:
        sheet = command.out.with_stem(f"{command.out.stem}-sheet")
        save_sheet(pictures, sheet)
        console.print(f"{sheet}  all of them", highlight=False, markup=False)
    for file in previews.finish(pictures):
        console.print(f"{file}  as it formed", highlight=False, markup=False)
    console.print(timing_table(pictures, total_s))
    if command.trace:
        for picture in pictures:
            for line in waterfall_lines(picture, max(72, console.width)):
                console.print(line, highlight=False)
    if command.trace_html is not None:
        write_page(command.trace_html, pictures, total_s, prompt)
        console.print(f"{command.trace_html}  where the time went", highlight=False, markup=False)


def _collect(
    events: Iterator[Event],
    options: GenerateOptions,
    out: Path,
    messages: Console,
    previews: PreviewFiles,
) -> tuple[list[GeneratedImage], float]:
    """Writes each image as it arrives; returns all in order, and the seconds they took."""
    images: list[GeneratedImage] = []
    tasks: dict[str, bars.TaskID] = {}
    count, total_s = 1, 0.0
    edit = options.get("mask_free_edit")
    several_iterations = edit is not None and bool(edit.return_iterations)
    with _bars(messages) as shown:
        for event in events:
            match event:
                case Accepted():
                    count = event.count
                case RequestWarning():
                    messages.print(f"warning: {event.message}", highlight=False, markup=False)
                case Progress():
                    if event.stage not in tasks:
                        total = event.total * event.parts * (options.get("best_of") or count)
                        tasks[event.stage] = shown.add_task(event.stage, total=total)
                    shown.advance(tasks[event.stage])
                    previews.add(event)
                case GeneratedImage():
                    file = _file_of(event, out, several=count > 1, iteration=several_iterations)
                    save_picture(event, file)
                    shown.console.print(f"{file}  {_said_of(event)}", highlight=False, markup=False)
                    images.append(event)
                case Done():
                    total_s = event.total_s
    return in_order(images), total_s


def _said_of(image: GeneratedImage) -> str:
    """Returns what is printed of an image beside its file."""
    words = [f"seed {image.seed}"]
    if image.score is not None:
        words.append(f"score {image.score:.4f}")
    if image.safety_score is not None:
        words.append(f"safety score {image.safety_score:.2f}{', blurred' * image.blurred}")
    return "  ".join(words)


def _file_of(image: GeneratedImage, out: Path, *, several: bool, iteration: bool) -> Path:
    """Returns the file of an image; its name has number and iteration if there are several."""
    place = image.index if image.rank is None else image.rank
    index = f"-{place}" if several else ""
    after = f"-after-{image.iteration}" if iteration else ""
    return out.with_stem(f"{out.stem}{index}{after}")


@contextmanager
def _found_or_started(
    checkpoints: Path | None, tls: Tls | None, messages: Console
) -> Iterator[tuple[str, Tls | None]]:
    """Yields the default address if servers answer there, else that of some for one call.

    Those for one call are reached by this machine alone, and speak plain text.
    """
    if checkpoints is None and serving(DEFAULT_ADDRESS, tls=tls):
        messages.print(f"servers at {DEFAULT_ADDRESS} paint", highlight=False)
        yield DEFAULT_ADDRESS, tls
        return
    with _embedded(checkpoints or DEMO, messages) as address:
        yield address, None


@contextmanager
def _embedded(checkpoints: Path, messages: Console) -> Iterator[str]:
    """Runs servers for one call; yields the orchestrator's address."""
    check_checkpoints(checkpoints)  # before the log is created
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("wb", buffering=0) as file, ExitStack() as stack:
        log = TextIOWrapper(file, write_through=True)  # nothing is left to write at the end
        with messages.status(Text(f"starting servers with {checkpoints}; log in {LOG}")):
            running = stack.enter_context(local_stack(checkpoints, log))
        yield running.address


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Handles SIGTERM as Ctrl-C, so that started servers are stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _bars(console: Console) -> bars.Progress:
    return bars.Progress(
        bars.TextColumn("{task.description:>13}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
