"""The kinds of faults, and their seeded random order over all pods.

A disk is not really filled, which would take root: a limit of the process (RLIMIT_FSIZE of 0) fails
every write to a file with EFBIG in place of ENOSPC, and the log of all pods becomes /dev/full.
"""

import asyncio
import os
import random
import resource
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TextIO

import psutil

from services.stages import ORCHESTRATOR
from tests.chaos.stack import ChaosStack, Target

SHORTEST_S = 0.5
FULL_DISK = "/dev/full"
SLOW_S = 0.1  # that each piece of a slow connection waits

Begin = Callable[[ChaosStack, Target], AbstractAsyncContextManager[None]]


class NothingToHit(Exception):
    """The target has no process that this fault could hit now."""


@asynccontextmanager
async def killed(stack: ChaosStack, target: Target) -> AsyncIterator[None]:
    """Kills the pod's process at once, as for want of memory; `muse up` starts another."""
    process = _process(target)
    process.kill()
    while process.is_running():  # noqa: ASYNC110, a process of another parent sets no event
        await asyncio.sleep(0.01)
    yield


@asynccontextmanager
async def worker_killed(stack: ChaosStack, target: Target) -> AsyncIterator[None]:
    """Kills the processes that a pod started, such as those that decode picture files."""
    children = _process(target).children(recursive=True)
    if not children:
        raise NothingToHit
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    yield


@asynccontextmanager
async def stopped(stack: ChaosStack, target: Target) -> AsyncIterator[None]:
    """Stops the pod's process, which keeps its connections but answers nothing, for a while."""
    process = _process(target)
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):  # its liveness probe had it killed
            process.resume()


@asynccontextmanager
async def cut(stack: ChaosStack, target: Target) -> AsyncIterator[None]:
    """Resets all connections to a pod, and refuses further ones for a while."""
    await target.line.cut()
    try:
        yield
    finally:
        await target.line.restore()


@asynccontextmanager
async def held(stack: ChaosStack, target: Target) -> AsyncIterator[None]:
    """Lets nothing through to a pod and back for a while; nothing is lost, as by TCP."""
    target.line.hold()
    try:
        yield
    finally:
        target.line.release()


@asynccontextmanager
async def slowed(stack: ChaosStack, target: Target) -> AsyncIterator[None]:
    """Slows the connections to a pod for a while."""
    target.line.delay_s = SLOW_S
    try:
        yield
    finally:
        target.line.delay_s = 0.0


@asynccontextmanager
async def disk_full(stack: ChaosStack, target: Target) -> AsyncIterator[None]:
    """Fails every write of the pod to a file, and every line of the log, for a while."""
    process = _process(target)
    before = process.rlimit(resource.RLIMIT_FSIZE)
    process.rlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with _full(stack.log):
            yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def _full(file: TextIO) -> Iterator[None]:
    """Makes an open file that of a full disk for a block."""
    kept, full = os.dup(file.fileno()), os.open(FULL_DISK, os.O_WRONLY)
    try:
        os.dup2(full, file.fileno())
        yield
    finally:
        os.dup2(kept, file.fileno())
        os.close(full)
        os.close(kept)


def _process(target: Target) -> psutil.Process:
    pid = target.pod.pid
    if pid is None:
        raise NothingToHit
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        raise NothingToHit from None


@dataclass(frozen=True, kw_only=True)
class FaultKind:
    """A kind of fault.

    Attributes:
        begin: Brings the fault about, and takes it back at the end of the block.
        lasts: Whether it lasts a while; others happen at once.
        ends_calls: Whether calls of a pod that has no other replica may fail by it.
        only: Name of the only Deployment that it hits; "" for all.
    """

    begin: Begin
    lasts: bool = True
    ends_calls: bool = True
    only: str = ""


KINDS = {
    "kill": FaultKind(begin=killed, lasts=False),
    "stop": FaultKind(begin=stopped),
    "cut": FaultKind(begin=cut),
    "hold": FaultKind(begin=held),
    "slow": FaultKind(begin=slowed, ends_calls=False),
    "disk": FaultKind(begin=disk_full, ends_calls=False),
    "worker": FaultKind(begin=worker_killed, lasts=False, ends_calls=False, only=ORCHESTRATOR),
}


@dataclass(frozen=True, kw_only=True)
class PlannedFault:
    """A fault to come: its kind, the name of its pod, and the seconds that it lasts."""

    kind: str
    target: str
    lasts_s: float


def planned_faults(
    kinds: Sequence[str], deployments: Mapping[str, str], *, seed: int, longest_s: float
) -> Iterator[PlannedFault]:
    """Yields faults without end: rounds of every kind at every pod, each in a new random order.

    Args:
        kinds: Names of kinds; none for no faults.
        deployments: Name of the Deployment of each pod, by the pod's name.
        seed: Equal seeds give equal faults.
        longest_s: Longest time that a fault lasts.

    Raises:
        ValueError: a kind is unknown.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"kinds: expected some of {', '.join(KINDS)}, got {', '.join(unknown)}")
    pairs = [
        (kind, name)
        for kind in kinds
        for name, deployment in deployments.items()
        if KINDS[kind].only in ("", deployment)
    ]
    return _rounds(pairs, random.Random(seed), longest_s)


def _rounds(
    pairs: Sequence[tuple[str, str]], chance: random.Random, longest_s: float
) -> Iterator[PlannedFault]:
    while pairs:
        for kind, name in chance.sample(pairs, len(pairs)):
            lasts_s = chance.uniform(SHORTEST_S, max(SHORTEST_S, longest_s))
            yield PlannedFault(
                kind=kind, target=name, lasts_s=lasts_s if KINDS[kind].lasts else 0.0
            )
