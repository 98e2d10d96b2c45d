"""How long a replica of a stage takes, and the file that measured times are read from.

A file of measured times is JSON. Stages that it leaves out are computed.

    {
      "source": "what measured this, on what",
      "stages": {
        "text_encoder": {"batch_s": {"1": 0.011, "8": 0.020}, "max_wait_s": 0.005},
        "base": {"slots": 8, "step_s": {"2": 0.021, "16": 0.110}, "admit_s": 0.002}
      }
    }

`batch_s` (orchestrator, text_encoder, tokenizer) is the seconds of a batch by how many requests are
in it; the largest is the replica's --max-batch-size. `step_s` (base, superres) is the seconds of a
step by the rows it computes: a request is one row, or two with guidance. What was not measured
takes as long as the next larger number that was; `dispatch_s` is what the host adds to each
dispatch of steps, `admit_s` what seating a request takes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.runtime.scheduling.forecast import StepTimes
from services.stages import DECODING, ORCHESTRATOR, STAGES

ORDER = (ORCHESTRATOR, *STAGES)  # as a prompt passes them
MOST_SLOTS = 1024


@dataclass(frozen=True, kw_only=True)
class SlotTimes:
    """A replica whose requests join and leave between steps: base, superres.

    Attributes:
        step_s: Seconds of a step: `step_s[requests][guided]`, of so many requests in slots and so
            many of them with guidance; the first index goes to the number of slots.
        admit_s: Seconds that seating a request takes.
        dispatch_s: Seconds that the host adds to each dispatch of steps.
        memory_bytes: Weights, and what the slots keep; 0 if it was not computed.
    """

    step_s: tuple[tuple[float, ...], ...]
    admit_s: float = 0.0
    dispatch_s: float = 0.0
    memory_bytes: int = 0

    @property
    def together(self) -> int:
        """Requests that are computed at a time."""
        return len(self.step_s) - 1

    def residence_s(self, steps: int, *, present: int, guided: int) -> float:
        """Returns how long a request is in its slot, itself one of those `present`."""
        return self.admit_s + steps * (self.step_s[present][guided] + self.dispatch_s)


@dataclass(frozen=True, kw_only=True)
class BatchTimes:
    """A replica that computes whole requests in batches: text encoder, tokenizer, orchestrator.

    Attributes:
        batch_s: Seconds of a batch by its rows, from none to as many as fit.
        max_wait_s: Seconds a request waits for company while the replica is free.
        memory_bytes: Weights, and what a full batch keeps; 0 if it was not computed.
    """

    batch_s: tuple[float, ...]
    max_wait_s: float = 0.0
    memory_bytes: int = 0

    @property
    def together(self) -> int:
        """Requests that are computed at a time."""
        return len(self.batch_s) - 1

    def seconds(self, rows: int) -> float:
        """Returns what a batch takes; more rows than fit are computed in turns."""
        turns, rest = divmod(rows, self.together)
        return turns * self.batch_s[-1] + self.batch_s[rest]


StageTimes = SlotTimes | BatchTimes

# `python -m benchmarks.overhead`, benchmarks/RESULTS.md: what a request takes besides compute and
# queues (overhead and transfer: 30.2 - 12.0 ms) on 2 vCPU of an AMD EPYC, for pictures of 128 px.
# All of it counts as work of the orchestrator, one request at a time.
ORCHESTRATOR_TIMES = BatchTimes(batch_s=(0.0, 0.0182))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a file says.

    Attributes:
        source: Who measured it, on what.
        stages: Times by name; those that are missing were not measured.
    """

    source: str
    stages: Mapping[str, StageTimes]


def read_step_times(file: Path) -> Measured:
    """Reads measured times.

    Raises:
        ValueError: there is no such file, or it is written in another way.
    """
    try:
        written = json.loads(file.read_text())
    except FileNotFoundError:
        raise ValueError(f"step_times: expected a JSON file, there is no {file}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"step_times: {file} cannot be read as JSON: {error}") from None
    if not isinstance(written, dict) or not isinstance(written.get("stages"), dict):
        raise ValueError(
            f'step_times: expected an object with "stages", an object too, in {file}, as '
            "docs/planning.md shows it"
        )
    unknown = set(written["stages"]) - set(ORDER)
    if unknown:
        raise ValueError(
            f"step_times: expected stages of {', '.join(ORDER)}, got {', '.join(sorted(unknown))}"
        )
    stages = {name: _stage(name, fields) for name, fields in written["stages"].items()}
    return Measured(source=str(written.get("source") or file), stages=stages)


def _stage(name: str, fields: Any) -> StageTimes:
    if not isinstance(fields, dict):
        raise ValueError(f"step_times: {name}: expected an object, got {fields!r}")
    known = ["batch_s", "max_wait_s"]
    if name in DECODING:
        known = ["admit_s", "dispatch_s", "slots", "step_s"]
    if unknown := set(fields).difference(known):
        raise ValueError(
            f"step_times: {name}: expected some of {', '.join(known)}, "
            f"got {', '.join(sorted(unknown))}"
        )
    if name not in DECODING:
        measured = _by_number(name, "batch_s", fields)
        batch_s = (0.0, *(_next_larger(measured, rows) for rows in range(1, max(measured) + 1)))
        return BatchTimes(batch_s=batch_s, max_wait_s=_seconds(name, "max_wait_s", fields))
    slots = fields.get("slots", 1)
    if not isinstance(slots, int) or isinstance(slots, bool) or not 1 <= slots <= MOST_SLOTS:
        raise ValueError(f"step_times: {name}.slots: expected 1 to {MOST_SLOTS}, got {slots!r}")
    measured = _by_number(name, "step_s", fields)
    step_s = tuple(
        tuple(_next_larger(measured, requests + guided) for guided in range(requests + 1))
        for requests in range(slots + 1)
    )
    return SlotTimes(
        step_s=step_s,
        admit_s=_seconds(name, "admit_s", fields),
        dispatch_s=_seconds(name, "dispatch_s", fields),
    )


def _by_number(name: str, field: str, fields: Mapping[str, Any]) -> dict[int, float]:
    written = fields.get(field)
    if not isinstance(written, dict) or not written:
        raise ValueError(
            f"step_times: {name}.{field}: expected seconds by number, such as "
            f'{{"1": 0.01, "8": 0.04}}, got {written!r}'
        )
    found = {}
    for number, seconds in written.items():
        if not number.isdecimal() or not 1 <= int(number) <= 2 * MOST_SLOTS:
            raise ValueError(
                f"step_times: {name}.{field}: expected whole numbers from 1 to {2 * MOST_SLOTS} "
                f"as keys, got {number!r}"
            )
        found[int(number)] = _above_zero(f"{name}.{field}[{number}]", seconds)
    return found


def _above_zero(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise ValueError(
            f"step_times: {name}: expected seconds above 0 and below a million, got {value!r}"
        )
    return float(value)


def _seconds(name: str, field: str, fields: Mapping[str, Any]) -> float:
    value = fields.get(field, 0.0)
    if value == 0 and not isinstance(value, bool):
        return 0.0
    return _above_zero(f"{name}.{field}", value)


def _next_larger(measured: Mapping[int, float], number: int) -> float:
    """Returns what a number takes, by the rule by which servers forecast."""
    times = StepTimes()
    for each, seconds in measured.items():
        times.measure(each, seconds)
    return times.seconds(number) or 0.0
