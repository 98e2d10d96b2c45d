"""Processes that decode the picture files of callers, within limits of time and memory.

A file that takes more ends its process and no other, and is refused. A process that is killed from
outside says nothing of its file, which is decoded again, once.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import IO, TypeVar

import numpy as np

from services.orchestrator.threads import run_in
from services.pictures.errors import PictureError
from services.pictures.files import PictureLimits, ReadPicture, SourcePicture
from services.pictures.worker import write_message

T = TypeVar("T")
Argument = TypeVar("Argument")


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """Limits of decoding one file.

    Attributes:
        cpu_s: Seconds of computing.
        wall_s: Seconds altogether, for a machine that does other things too.
        memory_bytes: Address space of the process.
    """

    cpu_s: int = 20
    wall_s: float = 60.0
    memory_bytes: int = 2**31


class KilledProcessError(PictureError):
    """A decoding process was killed from outside, as by the kernel for want of memory."""


class DecodingProcess:
    """One process of `services.pictures.worker`; one thread at a time uses it."""

    def __init__(self, within: DecodingLimits) -> None:
        """Starts the process."""
        self._within, self._killed_here = within, False
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "services.pictures.worker",
                str(within.cpu_s),
                str(within.memory_bytes),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C ends the server, and the server its processes
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each thread reserves memory
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def read_picture(
        self, content: bytes, limits: PictureLimits, *, backdrop: str = "white"
    ) -> SourcePicture:
        """Decodes a file as `services.pictures.files.read_picture`.

        Raises:
            PictureError: as there, or the file takes more than the limits of decoding.
            KilledProcessError: the process was killed from outside.
        """
        within = self._within
        request = {"limits": asdict(limits), "backdrop": backdrop, "length": len(content)}
        timer = threading.Timer(within.wall_s, self.kill)
        timer.start()
        try:
            write_message(self._requests, request, content)
            return _read_answer(self._answers)
        except (EOFError, BrokenPipeError) as error:
            killed = self._process.wait() == -signal.SIGKILL and not self._killed_here
            self.end()
            raise (KilledProcessError if killed else PictureError)(
                f"a picture that decodes within {within.cpu_s} s of computing, {within.wall_s:g} s "
                f"altogether and {within.memory_bytes >> 20} MiB",
                "one that takes more",
                "save it anew, smaller or not progressive",
            ) from error
        finally:
            timer.cancel()

    @property
    def running(self) -> bool:
        """Whether the process can decode another file."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Makes `read_picture` end, in whichever thread it runs."""
        self._killed_here = True
        self._process.kill()

    def end(self) -> None:
        """Ends the process; no thread may use it."""
        self.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # a request that was not written to its end
            self._requests.close()
        self._answers.close()


def _read_answer(answers: IO[bytes]) -> SourcePicture:
    """Reads the answer of `services.pictures.worker.answer`.

    Raises:
        PictureError: the file is refused.
        EOFError: the process ended before the end of its answer.
    """
    line = answers.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    found = json.loads(line)
    if "refusal" in found:
        raise PictureError(**found["refusal"])
    height, width = found["height"], found["width"]

    def pixels(*shape: int) -> np.ndarray:
        length = int(np.prod(shape))
        content = answers.read(length)
        if len(content) < length:
            raise EOFError
        return np.frombuffer(content, np.uint8).reshape(shape)

    rgb = pixels(height, width, 3)
    return SourcePicture(rgb=rgb, alpha=pixels(height, width) if found["alpha"] else None)


class DecodingProcesses:
    """A few processes, started when the first files come; further files wait for a free one."""

    def __init__(self, count: int | None = None, limits: DecodingLimits | None = None) -> None:
        """Starts none yet; `count` is by default the number of cores, at most 4."""
        count = min(4, os.cpu_count() or 1) if count is None else count
        self._limits = DecodingLimits() if limits is None else limits
        self._free = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, "decoding")
        self._idle: list[DecodingProcess] = []

    async def run(self, work: Callable[[Argument, ReadPicture], T], argument: Argument) -> T:
        """Runs `work` in a thread, with a function that reads pictures in a process.

        If the caller is cancelled, the process is killed, and `work` has ended when `run` does.
        """
        async with self._free:
            try:
                return await self._run(work, argument)
            except KilledProcessError:  # a second time it is the file that takes the memory
                return await self._run(work, argument)

    async def _run(self, work: Callable[[Argument, ReadPicture], T], argument: Argument) -> T:
        while self._idle and not self._idle[-1].running:  # for want of memory, for instance
            self._idle.pop().end()
        while not self._idle:
            await run_in(self._threads, self._start)
        process = self._idle.pop()
        try:
            reading = partial(work, argument, process.read_picture)
            return await run_in(self._threads, reading, cancel=process.kill)
        except asyncio.CancelledError:
            process.end()
            raise
        finally:
            if process.running:
                self._idle.append(process)

    def _start(self) -> None:
        """Starts an idle process, which the next file gets if the caller is cancelled meanwhile."""
        self._idle.append(DecodingProcess(self._limits))

    def close(self) -> None:
        """Ends all processes; none may be in use."""
        while self._idle:
            self._idle.pop().end()
        self._threads.shutdown()
