"""Each check of a run of faults catches what violates it, and nothing else."""

import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.chaos import checks
from tests.chaos.records import OK, Answer, Attempt, Fault, Sample, Violation
from tests.chaos.watching import Watch

QUIET = {"generate/1": {"image 0": "aa", "image 1": "bb"}}


def attempt(code: str = OK, begin_s: float = 0.0, **changes: Any) -> Attempt:
    return Attempt(**{"begin_s": begin_s, "end_s": begin_s + 1, "code": code, **changes})


def answer(*attempts: Attempt, **digests: str) -> Answer:
    return Answer(
        number=7,
        request="generate/1",
        attempts=attempts,
        digests={name.replace("_", " "): value for name, value in digests.items()},
    )


def fault(target: str = "base-0", **changes: Any) -> Fault:
    times = {"begin_s": 10.0, "end_s": 12.0, "healed_s": 15.0}
    return Fault(**{"kind": "kill", "target": target, "ends_calls": False, **times, **changes})


def series(values: Sequence[float], process: str = "base-0", pid: int = 5) -> list[Sample]:
    """Samples, one a second, of as many MiB and descriptors."""
    return [
        Sample(
            at_s=float(second),
            process=process,
            pid=pid,
            memory_bytes=int(value * checks.MIB),
            descriptors=int(value),
            answered=2 * second,
        )
        for second, value in enumerate(values)
    ]


ALONE = fault("orchestrator-0", ends_calls=True)


def test_a_request_saved_by_its_caller_while_no_replica_could_serve_it_is_not_lost() -> None:
    saved = answer(attempt("UNAVAILABLE", 11), attempt(OK, 13))
    assert checks.lost_requests([saved], [ALONE]) == []


def test_a_failure_that_another_replica_could_have_saved_is_a_lost_request() -> None:
    failed = answer(attempt("UNAVAILABLE", 11, message="stage base is away"), attempt(OK, 13))
    (found,) = checks.lost_requests([failed], [fault()])
    assert str(found) == (
        "lost request: failed after 1.0 s as UNAVAILABLE: stage base is away [request: generate/1 "
        "(request 7); fault: kill of base-0 at 10.0 s; process: base-0]"
    )


@pytest.mark.parametrize("begin_s", [5, 16])
def test_a_failure_before_a_fault_or_after_its_healing_is_a_lost_request(begin_s: float) -> None:
    failed = answer(attempt("UNAVAILABLE", begin_s), attempt(OK, begin_s + 1))
    (found,) = checks.lost_requests([failed], [ALONE])
    assert found.fault == "none"


@pytest.mark.parametrize("code", ["INTERNAL", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "KeyError"])
def test_no_other_status_is_an_outcome_of_a_fault(code: str) -> None:
    (found,) = checks.lost_requests([answer(attempt(code, 11))], [ALONE])
    assert (found.check, found.process) == ("lost request", "orchestrator-0")
    assert f"as {code}" in found.message


def test_a_refusal_for_want_of_room_is_tried_again_if_it_says_when() -> None:
    said = attempt("RESOURCE_EXHAUSTED", retry_after_s=1.0)
    assert checks.lost_requests([answer(said, attempt(OK, 2))], []) == []
    (found,) = checks.lost_requests([answer(attempt("RESOURCE_EXHAUSTED"))], [])
    assert "RESOURCE_EXHAUSTED" in found.message


def test_a_request_that_is_never_answered_is_lost_whatever_fault_there_was() -> None:
    away = [attempt("UNAVAILABLE", second) for second in (11, 13, 40)]
    unhealed = fault("orchestrator-0", ends_calls=True, healed_s=None)
    (found,) = checks.lost_requests([answer(*away)], [unhealed])
    assert found.message == "not answered after 3 attempts in 30 s: UNAVAILABLE: "


def test_a_picture_of_other_pixels_is_a_wrong_answer() -> None:
    right = answer(attempt(begin_s=11), image_0="aa", image_1="bb")
    wrong = answer(attempt(begin_s=11), image_0="aa", image_1="cc", image_2="dd")
    assert checks.wrong_answers([right], QUIET, [fault()]) == []
    (found,) = checks.wrong_answers([wrong], QUIET, [fault()])
    assert found.message == "other pixels than in the quiet run: image 1, image 2"
    assert found.fault == "kill of base-0 at 10.0 s"


def test_a_missing_picture_is_a_wrong_answer() -> None:
    (found,) = checks.wrong_answers([answer(attempt(), image_0="aa")], QUIET, [])
    assert found.message.endswith("image 1")


@pytest.mark.parametrize("healed_s", [43.0, None])
def test_a_fault_that_heals_late_or_never_is_caught(healed_s: float | None) -> None:
    slow = fault(healed_s=healed_s, problem="base-0 is not ready")
    (found,) = checks.slow_heals([fault(), slow], within_s=30)
    assert (found.process, found.fault) == ("base-0", slow.name)
    assert "within 30 s: base-0 is not ready" in found.message


def growth(samples: list[Sample]) -> list[Violation]:
    return checks.grown_memory(samples, warm_up_s=10, most_mib=32)


def test_memory_that_grows_with_the_requests_is_caught_and_named() -> None:
    flat, leaking = series([300] * 80), series([100 + second for second in range(80)], "base-1", 6)
    (found,) = growth(flat + leaking)
    assert found.process == "base-1 (pid 6)"
    # Of 70 seconds after warm-up the quarters of 17 are 53 s apart; two requests a second.
    assert found.message.startswith("grew by 53.0 MiB in 69 s and 138 requests (393.3 KiB")


def test_memory_of_the_warm_up_and_of_a_burst_is_no_leak() -> None:
    assert growth(series([second * 30 for second in range(10)] + [300] * 70)) == []
    assert growth(series([300] * 40 + [900] * 5 + [300] * 35)) == []


def test_a_process_that_was_started_again_is_judged_by_itself() -> None:
    assert growth(series([100] * 40) + series([400] * 40, pid=6)) == []


def test_a_process_that_lived_too_short_is_not_judged() -> None:
    short = series([100 * second for second in range(12)])
    assert checks.judged_processes(short, warm_up_s=10) == []
    assert len(checks.judged_processes(short, warm_up_s=2)) == 1


def test_descriptors_that_are_never_closed_are_caught() -> None:
    def leaked(values: Sequence[float]) -> list[Violation]:
        return checks.leaked_descriptors(series(values), warm_up_s=10, most=16)

    assert leaked([20 + second % 5 for second in range(80)]) == []
    (found,) = leaked([20 + second for second in range(80)])
    assert found.message == "holds 53 more descriptors than when warm, expected at most 16"


def test_workers_beyond_those_that_a_pod_needs_are_caught() -> None:
    def workers(count: int) -> list[Sample]:
        pids = range(count)
        return [each for pid in pids for each in series([20], "orchestrator-0/worker", pid)]

    assert checks.too_many_workers(workers(4) + series([20] * 9), most=4) == []
    (found,) = checks.too_many_workers(workers(6), most=4)
    assert found.process == "orchestrator-0/worker"
    assert found.message == "6 processes at 0.0 s, expected at most 4"


def test_a_slot_that_is_still_busy_is_caught() -> None:
    (found,) = checks.busy_slots({"base-0": (0, 0), "base-1": (0, 2)})
    assert (found.process, found.message) == (
        "base-1",
        "0 requests wait and 2 compute, though all have ended",
    )


def test_a_process_that_is_left_is_caught_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pod = SimpleNamespace(pid=child.pid, ready=False)
    stack: Any = SimpleNamespace(targets={"base-0": SimpleNamespace(pod=pod)})
    watch = Watch(stack)
    try:
        watch.sample(0.0, 0)
        assert watch.samples == []  # it loads
        pod.ready = True
        watch.sample(1.0, 0)
        pod.ready = False  # it does not answer a probe
        watch.sample(2.0, 0)
        assert [sample.at_s for sample in watch.samples] == [1, 2]
        (found,) = checks.left_processes(watch.left())
        assert found.process == f"base-0 (pid {child.pid})"
        assert watch.samples[0].memory_bytes > 0
        assert watch.samples[0].descriptors >= 3
    finally:
        child.communicate()
    assert not psutil.pid_exists(child.pid)
    assert checks.left_processes(watch.left()) == []


def test_a_planted_leak_must_be_caught_and_hides_no_other_violation() -> None:
    caught = Violation(check="memory", message="grew", process="text-encoder-1 (pid 6)")
    other = Violation(check="memory", message="grew", process="base-0 (pid 5)")
    assert checks.caught_leak([caught, other], ["text-encoder"]) == [other]
    (missed,) = checks.caught_leak([], ["text-encoder"])
    assert (missed.check, missed.process) == ("planted leak", "text-encoder")
    assert checks.caught_leak([other], []) == [other]
