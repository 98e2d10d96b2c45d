"""What must hold under faults; each check returns the violations that it finds."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from tests.chaos.records import OK, WORKER, Answer, Attempt, Fault, Sample, Violation

UNAVAILABLE, EXHAUSTED = "UNAVAILABLE", "RESOURCE_EXHAUSTED"
MIN_SAMPLES = 8  # of one process after its warm-up; with fewer it is not judged
MIB = 2**20


def may_be_retried(attempt: Attempt) -> bool:
    """Returns whether docs/clients.md tells callers to try again after this failure.

    INTERNAL, which callers may try once more, is no outcome of a fault: here it is a violation.
    """
    return attempt.code == UNAVAILABLE or (
        attempt.code == EXHAUSTED and attempt.retry_after_s is not None
    )


def lost_requests(answers: Iterable[Answer], faults: Sequence[Fault]) -> list[Violation]:
    """No request fails that a retry could save.

    - A fault that leaves a replica of the stage to do its work fails no call at all: the
      orchestrator retries there.
    - A fault that leaves none (the orchestrator itself, or the only replica of a stage) may fail
      calls as UNAVAILABLE, and only while it lasts and heals.
    - A refusal for want of room (RESOURCE_EXHAUSTED with a time to try again after) is no failure.
    - Every request is answered in the end, by a caller that tries again as docs/clients.md says.
    - Any other status fails the check.
    """
    found = []
    for answer in answers:
        for attempt in answer.attempts:
            if attempt.code == OK or (attempt.code == EXHAUSTED and may_be_retried(attempt)):
                continue
            near = [fault for fault in faults if fault.overlaps(attempt)]
            if attempt.code == UNAVAILABLE and any(fault.ends_calls for fault in near):
                continue
            why = f"failed after {attempt.end_s - attempt.begin_s:.1f} s"
            message = f"{why} as {attempt.code}: {attempt.message}"
            found.append(_violation("lost request", message, answer, near))
        last = answer.attempts[-1]
        if last.code != OK and may_be_retried(last):
            near = [fault for fault in faults if any(map(fault.overlaps, answer.attempts))]
            message = (
                f"not answered after {len(answer.attempts)} attempts in "
                f"{last.end_s - answer.attempts[0].begin_s:.0f} s: {last.code}: {last.message}"
            )
            found.append(_violation("lost request", message, answer, near))
    return found


def differing(expected: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """Returns the names of the pictures that are missing, too many, or of other pixels."""
    return sorted(
        name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)
    )


def wrong_answers(
    answers: Iterable[Answer], quiet: Mapping[str, Mapping[str, str]], faults: Sequence[Fault]
) -> list[Violation]:
    """Every picture has the pixels that the same request gave before any fault.

    Args:
        answers: Requests that were answered.
        quiet: Digests of the quiet run by the name of the request, and by that of the picture.
        faults: Faults of the run.
    """
    found = []
    for answer in answers:
        wrong = differing(quiet[answer.request], answer.digests)
        if wrong and answer.attempts[-1].code == OK:
            near = [fault for fault in faults if fault.overlaps(answer.attempts[-1])]
            message = f"other pixels than in the quiet run: {', '.join(wrong)}"
            found.append(_violation("wrong answer", message, answer, near))
    return found


def slow_heals(faults: Iterable[Fault], within_s: float) -> list[Violation]:
    """After each fault all is well again in time: health, and a request that is answered."""
    found = []
    for fault in faults:
        took_s = None if fault.healed_s is None else fault.healed_s - fault.end_s
        if took_s is not None and took_s <= within_s:
            continue
        after = "never while the run waited" if took_s is None else f"after {took_s:.1f} s"
        message = f"healed {after}, expected within {within_s:g} s: {fault.problem}"
        found.append(
            Violation(check="slow heal", message=message, fault=fault.name, process=fault.target)
        )
    return found


def grown_memory(
    samples: Iterable[Sample], *, warm_up_s: float, most_mib: float
) -> list[Violation]:
    """The memory of every process is flat once it is warm.

    Growth is the median of the last quarter of a process's samples less that of the first, so
    neither a burst nor one odd sample decides.

    Args:
        samples: Samples of all processes.
        warm_up_s: Seconds of each process that are left out.
        most_mib: Largest growth, however long the process runs.
    """
    found = []
    for judged in judged_processes(samples, warm_up_s):
        grown = _growth(judged, lambda sample: sample.memory_bytes) / MIB
        if grown > most_mib:
            requests = max(1, judged[-1].answered - judged[0].answered)
            message = (
                f"grew by {grown:.1f} MiB in {judged[-1].at_s - judged[0].at_s:.0f} s and "
                f"{requests} requests ({grown * 1024 / requests:.1f} KiB a request), expected at "
                f"most {most_mib:g} MiB"
            )
            found.append(Violation(check="memory", message=message, process=_process(judged)))
    return found


def leaked_descriptors(
    samples: Iterable[Sample], *, warm_up_s: float, most: int
) -> list[Violation]:
    """No process keeps file descriptors; growth is measured as in `grown_memory`."""
    found = []
    for judged in judged_processes(samples, warm_up_s):
        grown = _growth(judged, lambda sample: sample.descriptors)
        if grown > most:
            message = f"holds {grown:g} more descriptors than when warm, expected at most {most}"
            found.append(Violation(check="descriptors", message=message, process=_process(judged)))
    return found


def too_many_workers(samples: Iterable[Sample], most: int) -> list[Violation]:
    """No pod ever has more processes that it started than it needs at most."""
    at_once = Counter(
        (sample.process, sample.at_s) for sample in samples if sample.process.endswith(WORKER)
    )
    largest: dict[str, tuple[int, float]] = {}
    for (process, at_s), count in at_once.items():
        largest[process] = max(largest.get(process, (0, 0.0)), (count, at_s))
    return [
        Violation(
            check="workers",
            message=f"{count} processes at {at_s:.1f} s, expected at most {most}",
            process=process,
        )
        for process, (count, at_s) in largest.items()
        if count > most
    ]


def judged_processes(samples: Iterable[Sample], warm_up_s: float) -> list[list[Sample]]:
    """Returns the samples after warm-up of every process that lived long enough to be judged."""
    ordered = sorted(samples, key=lambda sample: (sample.process, sample.pid, sample.at_s))
    found = []
    for _, group in groupby(ordered, key=lambda sample: (sample.process, sample.pid)):
        own = list(group)
        warm = [sample for sample in own if sample.at_s >= own[0].at_s + warm_up_s]
        if len(warm) >= MIN_SAMPLES:
            found.append(warm)
    return found


def busy_slots(loads: Mapping[str, tuple[int, int]]) -> list[Violation]:
    """Nothing waits or computes in a stage once every request has ended.

    Args:
        loads: Numbers of waiting and of computing requests, by the name of the pod.
    """
    return [
        Violation(
            check="busy slots",
            message=f"{queued} requests wait and {active} compute, though all have ended",
            process=process,
        )
        for process, (queued, active) in loads.items()
        if queued or active
    ]


def left_processes(names: Iterable[str]) -> list[Violation]:
    """No process of the run is left at its end, by the names of those that are."""
    return [
        Violation(check="left process", message="runs on after the end", process=name)
        for name in names
    ]


def caught_leak(violations: Sequence[Violation], planted: Sequence[str]) -> list[Violation]:
    """The memory check names every stage in which a leak was planted; other violations remain.

    Args:
        violations: All violations of the run.
        planted: Beginnings of the names of processes that leak.
    """
    missed = [
        Violation(
            check="planted leak",
            message="the memory check did not catch the leak that was planted",
            process=name,
        )
        for name in planted
        if not any(each.check == "memory" and each.process.startswith(name) for each in violations)
    ]
    others = [
        each
        for each in violations
        if each.check != "memory" or not each.process.startswith(tuple(planted))
    ]
    return others + missed


def _growth(samples: Sequence[Sample], value: Callable[[Sample], int]) -> float:
    quarter = len(samples) // 4
    first, last = samples[:quarter], samples[-quarter:]
    return statistics.median(map(value, last)) - statistics.median(map(value, first))


def _process(samples: Sequence[Sample]) -> str:
    return f"{samples[0].process} (pid {samples[0].pid})"


def _violation(check: str, message: str, answer: Answer, near: Sequence[Fault]) -> Violation:
    return Violation(
        check=check,
        message=message,
        request=answer.name,
        fault=", ".join(fault.name for fault in near) or "none",
        process=", ".join(sorted({fault.target for fault in near})),
    )
