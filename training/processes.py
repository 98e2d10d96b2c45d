"""Several processes that train together: how they start, who writes, and how they stop as one."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils


def join_processes(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Connects this process with the others of its run, before JAX computes anything.

    Args:
        coordinator: Address of the first process, such as "host-0:8476"; None leaves this process
            alone. "auto" asks the environment, as TPU pods, Slurm and MPI have it.
        processes: How many there are; None only with "auto".
        process_id: Which of them this is, from 0; None only with "auto".

    Raises:
        ValueError: one of the three is missing, or the number is none of theirs.
    """
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    if coordinator is None and processes is None and process_id is None:
        return
    if coordinator is None or processes is None or process_id is None:
        raise ValueError(
            "expected --coordinator, --processes and --process-id together, got only some of them"
        )
    if not 0 <= process_id < processes:
        raise ValueError(f"expected a process id from 0 to {processes - 1}, got {process_id}")
    jax.distributed.initialize(coordinator, processes, process_id)


def is_first() -> bool:
    """Returns whether this is the process that writes logs, pictures, snapshots and checkpoints."""
    return jax.process_index() == 0


@contextmanager
def stop_signal() -> Iterator[Callable[[int], bool]]:
    """Yields what says, before a step, whether the run shall stop there.

    Of one process SIGTERM and SIGINT stop it. Of several, JAX notes SIGTERM in any of them and
    names one step at which all stop, so that all save the same state.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    stopped = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    before = {kind: signal.signal(kind, note) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda _: stopped
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
