"""Faults come in a seeded random order, do what they say, and are taken back."""

import asyncio
import resource
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.chaos.faults import KINDS, NothingToHit, planned_faults
from tests.tcp_line import Line
from tests.waiting import until

PODS = {"orchestrator-0": "orchestrator", "base-0": "base", "base-1": "base"}
# Answers each line with whether it could write a file, and with a child if asked for one.
POD = """
import subprocess, sys
for line in sys.stdin:
    if line == "child\\n":
        child = subprocess.Popen(["sleep", "60"])
    try:
        with open(sys.argv[1], "w") as file:
            file.write("x")
        print("written", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


def test_every_kind_hits_every_pod_once_a_round_in_an_order_of_the_seed() -> None:
    def first(seed: int, count: int) -> list[Any]:
        return list(islice(planned_faults(list(KINDS), PODS, seed=seed, longest_s=5), count))

    # Each kind at each pod, but workers at the orchestrator alone.
    round_of = len(KINDS) * len(PODS) - 2
    both = first(3, 2 * round_of)
    assert set(Counter((fault.kind, fault.target) for fault in both).values()) == {2}
    one, two = both[:round_of], both[round_of:]
    assert {fault.target for fault in one if fault.kind == "worker"} == {"orchestrator-0"}
    assert [fault.target for fault in one] != [fault.target for fault in two]
    assert all(0.5 <= fault.lasts_s <= 5 for fault in both if KINDS[fault.kind].lasts)
    assert first(3, round_of) == one
    assert first(4, round_of) != one


def test_no_kinds_give_no_faults_and_unknown_ones_are_named() -> None:
    assert list(planned_faults([], PODS, seed=0, longest_s=5)) == []
    with pytest.raises(ValueError, match=r"expected some of kill, .*, got flood"):
        planned_faults(["flood"], PODS, seed=0, longest_s=5)


@asynccontextmanager
async def pod(folder: Path) -> AsyncIterator[tuple[Any, Any, Any]]:
    """A stack of one process, its target, and a function that sends the process a line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        POD,
        str(folder / "written"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def ask(line: str = "write") -> str:
        stdin.write(f"{line}\n".encode())
        return (await stdout.readline()).decode().strip()

    with (folder / "log").open("w") as log:
        stack = SimpleNamespace(log=log)
        try:
            yield stack, SimpleNamespace(pod=SimpleNamespace(pid=process.pid)), ask
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def test_a_kill_ends_the_process(tmp_path: Path) -> None:
    async with pod(tmp_path) as (stack, target, ask):
        assert await ask() == "written"
        async with KINDS["kill"].begin(stack, target):
            assert not psutil.pid_exists(target.pod.pid)
        with pytest.raises(NothingToHit):
            async with KINDS["kill"].begin(stack, target):
                pass


async def test_a_worker_is_killed_and_its_pod_is_not(tmp_path: Path) -> None:
    async with pod(tmp_path) as (stack, target, ask):
        with pytest.raises(NothingToHit):
            async with KINDS["worker"].begin(stack, target):
                pass
        await ask("child")
        (child,) = psutil.Process(target.pod.pid).children()
        async with KINDS["worker"].begin(stack, target):
            await until(lambda: child.status() == psutil.STATUS_ZOMBIE)
        assert await ask() == "written"


async def test_a_stopped_process_goes_on_afterwards(tmp_path: Path) -> None:
    async with pod(tmp_path) as (stack, target, ask):
        process = psutil.Process(target.pod.pid)
        async with KINDS["stop"].begin(stack, target):
            await until(lambda: process.status() == psutil.STATUS_STOPPED)
        assert await ask() == "written"


async def test_a_full_disk_fails_files_and_log_until_it_is_taken_back(tmp_path: Path) -> None:
    async with pod(tmp_path) as (stack, target, ask):
        assert await ask() == "written"
        async with KINDS["disk"].begin(stack, target):
            assert await ask() == "File too large"
            with pytest.raises(OSError, match="No space left"):
                print("lost", file=stack.log, flush=True)
        assert await ask() == "written"
        limit = psutil.Process(target.pod.pid).rlimit(resource.RLIMIT_FSIZE)
        assert limit == resource.getrlimit(resource.RLIMIT_FSIZE)
        print("kept", file=stack.log, flush=True)
    assert (tmp_path / "log").read_text().endswith("kept\n")


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    """A line to a server that sends everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    line = Line(server.sockets[0].getsockname()[1])
    await line.restore()
    yield line
    await line.cut()
    server.close()


async def echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"word")
    return await reader.read(100)


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(100) == b""
    except ConnectionError:
        return True


async def test_a_cut_line_ends_connections_and_takes_new_ones_afterwards(line: Line) -> None:
    target: Any = SimpleNamespace(line=line)
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    assert await echoed(reader, writer) == b"word"
    stack: Any = SimpleNamespace()
    async with KINDS["cut"].begin(stack, target):
        assert await ended(reader)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", line.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    assert await echoed(reader, writer) == b"word"
    writer.close()


async def test_a_held_line_delivers_all_of_it_afterwards(line: Line) -> None:
    target: Any = SimpleNamespace(line=line)
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    stack: Any = SimpleNamespace()
    async with KINDS["hold"].begin(stack, target):
        reading = asyncio.create_task(echoed(reader, writer))
        await asyncio.wait({reading}, timeout=0.2)
        assert not reading.done()
    assert await reading == b"word"
    writer.close()


async def test_a_slow_line_is_slow_until_it_is_not(line: Line) -> None:
    target: Any = SimpleNamespace(line=line)
    loop = asyncio.get_running_loop()
    stack: Any = SimpleNamespace()
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    async with KINDS["slow"].begin(stack, target):
        begun_s = loop.time()
        assert await echoed(reader, writer) == b"word"
        assert loop.time() - begun_s >= 0.2  # there and back
    assert line.delay_s == 0
    writer.close()
