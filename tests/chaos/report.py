"""The report of a run: JSON lines as it goes, and a summary in the end."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from tests.chaos.checks import MIB
from tests.chaos.records import Answer, Fault, Sample, Violation


class Report:
    """Writer of the lines of a report; each is an object whose "event" says what it is of."""

    def __init__(self, file: TextIO) -> None:
        """Writes to a file that the caller closes."""
        self._file = file

    def write(self, event: str, fields: Mapping[str, Any]) -> None:
        """Writes a line, at once."""
        self._file.write(json.dumps({"event": event, **fields}) + "\n")
        self._file.flush()

    def fault(self, fault: Fault) -> None:
        """Writes a fault that has healed, or was not seen to."""
        self.write("fault", asdict(fault))

    def end(
        self,
        answers: Sequence[Answer],
        processes: Sequence[Sequence[Sample]],
        violations: Sequence[Violation],
        counts: Mapping[str, Any],
    ) -> None:
        """Writes the requests that took more than one attempt, processes, violations, counts."""
        for answer in answers:
            self.write("request", asdict(answer))
        for samples in processes:
            self.write("process", process_fields(samples))
        for violation in violations:
            self.write("violation", asdict(violation))
        self.write("end", {**counts, "violations": len(violations)})


def process_fields(samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns what the report has of one process that was judged."""
    memory = [sample.memory_bytes / MIB for sample in samples]
    return {
        "process": samples[0].process,
        "pid": samples[0].pid,
        "begin_s": samples[0].at_s,
        "end_s": samples[-1].at_s,
        "samples": len(samples),
        "first_mib": round(memory[0], 1),
        "last_mib": round(memory[-1], 1),
        "most_mib": round(max(memory), 1),
        "descriptors": samples[-1].descriptors,
        "most_descriptors": max(sample.descriptors for sample in samples),
    }


def summary(
    faults: Sequence[Fault],
    answers: Sequence[Answer],
    processes: Sequence[Sequence[Sample]],
    violations: Sequence[Violation],
    counts: Mapping[str, Any],
) -> str:
    """Returns the summary that a run prints."""
    lines = [", ".join(f"{name} {value}" for name, value in counts.items())]
    kinds = Counter(fault.kind for fault in faults)
    for kind, number in sorted(kinds.items()):
        of_kind = [each for each in faults if each.kind == kind and each.healed_s is not None]
        heals = [each.healed_s - each.end_s for each in of_kind if each.healed_s is not None]
        times = (
            f"median {statistics.median(heals):.1f} s, at most {max(heals):.1f} s" if heals else ""
        )
        lines.append(f"{kind}: {number} faults, {len(heals)} healed; {times}")
    retried = Counter(
        attempt.code for answer in answers for attempt in answer.attempts if attempt.code != "OK"
    )
    failed = ", ".join(f"{number} {code}" for code, number in sorted(retried.items()))
    lines.append(f"failed attempts: {failed or 'none'}")
    for samples in processes:
        fields = process_fields(samples)
        lines.append(
            f"{fields['process']} (pid {fields['pid']}), {fields['begin_s']:.0f} to "
            f"{fields['end_s']:.0f} s: {fields['first_mib']} MiB to {fields['last_mib']} MiB, "
            f"{fields['descriptors']} descriptors"
        )
    lines += [f"VIOLATION {violation}" for violation in violations]
    lines.append(f"{len(violations)} violations" if violations else "every check holds")
    return "\n".join(lines)


def open_report(folder: Path) -> TextIO:
    """Creates the folder and opens report.jsonl in it for a new report."""
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "report.jsonl").open("w")
