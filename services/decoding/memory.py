"""Memory check of a pool, before anything is loaded or compiled."""

from collections.abc import Sequence
from pathlib import Path

import jax

GIB = 2**30
MEMORY_INFORMATION = Path("/proc/meminfo")
CONTROL_GROUP = Path("/sys/fs/cgroup")


class NotEnoughMemory(ValueError):
    """A pool needs more memory than its devices have free; the message has the numbers."""


def check_memory(*, weights: int, slot: int, slots: int, devices: Sequence[jax.Device]) -> None:
    """Checks that weights and slots, in bytes on each device, fit into free memory.

    Temporary buffers of a step come on top.

    Raises:
        NotEnoughMemory: weights and slots need more than is free.
    """
    free = free_bytes(devices)
    if free is None or weights + slots * slot <= free:
        return
    most = (free - weights) // slot
    advice = (
        f"at most {most} fit, to be set by --max-batch-size"
        if most > 0
        else "the weights alone do not fit: take a device with more memory, or more devices "
        "with --mesh model=N"
    )
    raise NotEnoughMemory(
        f"more slots than memory: {slots} slots need {_gib(slots * slot)} and the weights "
        f"{_gib(weights)} on each device of {devices[0].device_kind} x{len(devices)}, where "
        f"{_gib(free)} are free; {advice}"
    )


def free_bytes(devices: Sequence[jax.Device]) -> int | None:
    """Returns the free bytes of each device; None if the device does not report them.

    CPU devices share the machine's memory evenly.
    """
    statistics = [device.memory_stats() or {} for device in devices]
    if all("bytes_limit" in each for each in statistics):
        return min(each["bytes_limit"] - each.get("bytes_in_use", 0) for each in statistics)
    if devices[0].platform != "cpu":
        return None
    free = machine_bytes()
    return None if free is None else free // len(devices)


def machine_bytes(
    information: Path = MEMORY_INFORMATION, control_group: Path = CONTROL_GROUP
) -> int | None:
    """Returns the free bytes of this machine or container, whichever is less; None if unknown."""
    known = [_of_machine(information), _of_container(control_group)]
    return min((free for free in known if free is not None), default=None)


def _of_machine(information: Path) -> int | None:
    if not information.is_file():
        return None
    lines = dict(line.split(":", 1) for line in information.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def _of_container(group: Path) -> int | None:
    """Returns the container's limit less its used bytes; droppable file caches count as free."""
    files = [group / name for name in ("memory.max", "memory.current", "memory.stat")]
    if not all(file.is_file() for file in files):
        return None
    limit, used, details = (file.read_text() for file in files)
    if limit.strip() == "max":
        return None
    numbers = dict(line.split() for line in details.splitlines())
    return max(0, int(limit) - int(used) + int(numbers.get("inactive_file", 0)))


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"
