"""Watching the processes of a run: samples of each, whether all is well, and what is left."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import grpc
import psutil
from muse_client import AsyncMuseClient, MuseError

from services.stages import STAGES
from tests.chaos.pictures import Quiet, Request
from tests.chaos.records import WORKER, Sample
from tests.chaos.stack import ChaosStack
from tools.local import serving

READINESS = "readiness"
PROBE_TIMEOUT_S, STATUS_TIMEOUT_S, REQUEST_TIMEOUT_S = 5.0, 30.0, 30.0


class Watch:
    """Samples of all processes of a stack, and every process that was ever seen.

    Attributes:
        samples: Samples in order, of each process from the moment its pod is ready: it loads and
            compiles before.
    """

    def __init__(self, stack: ChaosStack) -> None:
        """Starts without samples."""
        self.samples: list[Sample] = []
        self._stack, self._seen = stack, dict[psutil.Process, str]()
        self._started: set[psutil.Process] = set()

    def sample(self, at_s: float, answered: int) -> None:
        """Samples every process that runs now."""
        for name, target in self._stack.targets.items():
            if (pid := target.pod.pid) is None:
                continue
            try:
                process = psutil.Process(pid)
                named = {process: name}
                for child in process.children(recursive=True):
                    named[child] = f"{name}{WORKER}"
            except psutil.NoSuchProcess:  # it has just ended
                continue
            self._seen |= named
            if target.pod.ready:
                self._started.add(process)
            if process not in self._started:
                continue
            for each, own_name in named.items():
                try:
                    memory, descriptors = memory_bytes(each.pid), each.num_fds()
                except (psutil.Error, OSError):  # as above
                    continue
                if not memory:  # a zombie: its parent has not seen its end
                    continue
                sample = Sample(
                    at_s=at_s,
                    process=own_name,
                    pid=each.pid,
                    memory_bytes=memory,
                    descriptors=descriptors,
                    answered=answered,
                )
                self.samples.append(sample)

    def left(self) -> list[str]:
        """Returns the processes that were seen and still run, zombies too."""
        return [
            f"{name} (pid {process.pid})"
            for process, name in self._seen.items()
            if process.is_running()
        ]


def memory_bytes(pid: int) -> int:
    """Returns the memory of a process that is of no file: resident, or swapped out, as a leak is.

    Raises:
        OSError: it has ended.
    """
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return sum(1024 * int(fields.get(name, "0 kB").split()[0]) for name in ("RssAnon", "VmSwap"))


async def problem_of(
    stack: ChaosStack, client: AsyncMuseClient, canary: Request, quiet: Mapping[str, Quiet]
) -> str:
    """Returns what is not well; "" if every pod is ready and a request is answered rightly."""
    for name, target in stack.targets.items():
        if not await asyncio.to_thread(serving, target.address, READINESS, PROBE_TIMEOUT_S):
            return f"{name} is not ready"
        line = f"127.0.0.1:{target.line.port}"
        if not await asyncio.to_thread(serving, line, READINESS, PROBE_TIMEOUT_S):
            return f"{name} is not reached by its line"
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            digests = await canary.send(client)
    except TimeoutError:
        return f"{canary.name} is not answered within {REQUEST_TIMEOUT_S:g} s"
    except MuseError as error:
        return f"{canary.name} fails as {error.code.name}: {error.message}"
    return "" if digests == quiet[canary.name].digests else f"{canary.name} has other pixels"


async def stage_loads(stack: ChaosStack) -> dict[str, tuple[int, int]]:
    """Returns how many requests wait, and how many compute, in each pod of a stage."""
    stages = {stage.deployment: stage for stage in STAGES.values()}
    loads = {}
    for name, target in stack.targets.items():
        stage = stages.get(target.pod.local.deployment.name)
        if stage is None:  # the orchestrator has no slots
            continue
        async with grpc.aio.insecure_channel(target.address) as channel:
            answer = await stage.stub(channel).GetStatus(
                stage.status_request(), timeout=STATUS_TIMEOUT_S
            )
        loads[name] = (answer.status.queued, answer.status.active)
    return loads
