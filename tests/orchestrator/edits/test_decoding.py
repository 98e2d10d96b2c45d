"""Processes that decode pictures: the same pixels, limits that hold, nothing left behind."""

import asyncio
import io
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.orchestrator.edits import decoding
from services.orchestrator.edits.decoding import (
    DecodingLimits,
    DecodingProcess,
    DecodingProcesses,
)
from services.orchestrator.edits.pictures import LIMITS
from services.orchestrator.threads import run_in
from services.pictures import files
from services.pictures.errors import PictureError
from services.pictures.files import ReadPicture, SourcePicture
from tests.pictures.odd_files import slower_jpeg
from tests.waiting import until


def png(side: int, mode: str = "RGB") -> bytes:
    shape = (side, side, len(mode))
    drawn = np.random.default_rng(side).integers(0, 255, shape, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(drawn, mode).save(file, "PNG", compress_level=1)
    return file.getvalue()


def read(content: bytes, reader: ReadPicture) -> SourcePicture:
    return reader(content, LIMITS)


def pid_of(reader: Any) -> int:
    """Returns the process that a method of a `DecodingProcess` reads in."""
    return int(reader.__self__._process.pid)


@pytest.fixture
async def processes() -> AsyncIterator[DecodingProcesses]:
    processes = DecodingProcesses(1)
    yield processes
    processes.close()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
async def test_a_process_reads_what_the_reader_of_training_reads(
    processes: DecodingProcesses, mode: str
) -> None:
    content = png(300, mode)
    here, there = files.read_picture(content, LIMITS), await processes.run(read, content)
    np.testing.assert_array_equal(there.rgb, here.rgb)
    assert (there.alpha is None) == (mode == "RGB")
    if here.alpha is not None:
        np.testing.assert_array_equal(there.alpha, here.alpha)


async def test_a_refusal_comes_back_whole_and_the_process_goes_on(
    processes: DecodingProcesses,
) -> None:
    pids = set()

    def pid(content: bytes, reader: ReadPicture) -> None:
        pids.add(pid_of(reader))
        reader(content, LIMITS)

    for content in (b"no picture", png(20)[:60], b""):
        with pytest.raises(PictureError) as here:
            files.read_picture(content, LIMITS)
        with pytest.raises(PictureError) as there:
            await processes.run(pid, content)
        assert str(there.value) == str(here.value)
    await processes.run(pid, png(20))
    assert len(pids) == 1


def large_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4096, 4096)).save(file, "PNG")
    return file.getvalue()


def read_stopped(content: bytes, reader: ReadPicture) -> SourcePicture:
    """Reads in a process that does not go on, as on a machine that does other things."""
    os.kill(pid_of(reader), signal.SIGSTOP)
    return reader(content, LIMITS)


@pytest.mark.parametrize(
    ("limits", "content", "reading"),
    [
        (DecodingLimits(cpu_s=0), slower_jpeg, read),
        (DecodingLimits(wall_s=4), lambda: png(20), read_stopped),
        (DecodingLimits(memory_bytes=2**28), large_png, read),
    ],
    ids=["CPU", "wall", "memory"],
)
async def test_a_file_beyond_a_limit_is_refused_and_the_next_is_read(
    limits: DecodingLimits,
    content: Callable[[], bytes],
    reading: Callable[[bytes, ReadPicture], SourcePicture],
) -> None:
    processes, tries = DecodingProcesses(1, limits), []

    def try_reading(content: bytes, reader: ReadPicture) -> SourcePicture:
        tries.append(pid_of(reader))
        return reading(content, reader)

    with pytest.raises(PictureError, match="one that takes more"):
        await processes.run(try_reading, content())
    assert len(tries) == 1
    assert (await processes.run(read, png(20))).rgb.shape == (20, 20, 3)
    processes.close()


async def test_a_cancelled_caller_goes_on_once_its_process_is_dead() -> None:
    processes, started = DecodingProcesses(1), asyncio.Event()
    loop, pids = asyncio.get_running_loop(), []

    def note(content: bytes, reader: ReadPicture) -> SourcePicture:
        pids.append(pid_of(reader))
        loop.call_soon_threadsafe(started.set)
        return read_stopped(content, reader)  # which ends by a kill alone: here, or after a minute

    reading = asyncio.create_task(processes.run(note, png(20)))
    await started.wait()
    await asyncio.sleep(0.2)
    reading.cancel()
    begun = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await reading

    assert time.monotonic() - begun < DecodingLimits().wall_s / 2
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert (await processes.run(read, png(20))).rgb.shape == (20, 20, 3)
    processes.close()


async def test_a_process_that_was_killed_while_idle_is_replaced(
    processes: DecodingProcesses,
) -> None:
    def pid(content: bytes, reader: ReadPicture) -> int:
        reader(content, LIMITS)
        return pid_of(reader)

    first = await processes.run(pid, png(20))
    os.kill(first, signal.SIGKILL)
    await until(lambda: Path(f"/proc/{first}/stat").read_text().split()[2] == "Z")
    assert await processes.run(pid, png(20)) != first


async def test_who_is_cancelled_while_a_process_starts_leaves_it_to_the_next(
    processes: DecodingProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, kept, begun = [], DecodingProcess, asyncio.Event()
    loop = asyncio.get_running_loop()

    def start(limits: DecodingLimits) -> DecodingProcess:
        loop.call_soon_threadsafe(begun.set)
        started.append(kept(limits))
        return started[-1]

    monkeypatch.setattr(decoding, "DecodingProcess", start)
    starting = asyncio.create_task(processes.run(read, png(20)))
    await begun.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert (await processes.run(read, png(20))).rgb.shape == (20, 20, 3)
    assert len(started) == 1


@pytest.mark.parametrize("kills", [1, 2])
async def test_a_file_is_read_again_once_if_its_process_was_killed_from_outside(
    processes: DecodingProcesses, kills: int
) -> None:
    killed = []

    def read_killed(content: bytes, reader: ReadPicture) -> SourcePicture:
        if len(killed) < kills:
            killed.append(pid_of(reader))
            os.kill(killed[-1], signal.SIGKILL)
        return reader(content, LIMITS)

    if kills == 1:
        assert (await processes.run(read_killed, png(20))).rgb.shape == (20, 20, 3)
    else:
        with pytest.raises(PictureError, match="one that takes more"):
            await processes.run(read_killed, png(20))
    assert len(set(killed)) == kills


async def test_who_is_cancelled_while_a_thread_works_goes_on_when_it_has_ended() -> None:
    ended = []

    def work() -> None:
        time.sleep(0.3)
        ended.append(True)

    task = asyncio.create_task(run_in(None, work))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.sleep(0.05)
    task.cancel()  # impatience does not help
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


async def test_a_worker_loads_neither_grpc_nor_jax() -> None:
    code = "import sys, services.pictures.worker; print({'grpc', 'jax', 'muse'} & {*sys.modules})"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert (await process.communicate())[0] == b"set()\n"
