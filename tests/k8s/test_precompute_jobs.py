"""The Indexed Jobs of k8s/training/precompute: arguments of their pods, mistakes in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s.checks.cross_object import mistakes
from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest

FOLDER = "k8s/training/precompute"
Rendered = Callable[[str], list[Manifest]]


@pytest.mark.parametrize("name", ["tokens", "embeddings"])
def test_the_command_understands_what_each_pod_is_told(name: str, rendered: Rendered) -> None:
    from training.precompute.__main__ import CONFIGURATION, DATA, app

    job = Objects(rendered(FOLDER)).named("Job", f"precompute-{name}")
    assert job is not None
    spec = job["spec"]
    (box,) = spec["template"]["spec"]["containers"]
    assert box["command"] == ["python", "-m", "training.precompute", name]
    for index in (0, spec["completions"] - 1):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in box["args"]]
        _, bound, _ = app.parse_args([name, *words], exit_on_error=False, print_error=False)
        assert bound.arguments["shard"] == index
        assert bound.arguments["shards"] == spec["completions"]
        assert bound.arguments["out"] == Path("/work/precomputed")
    codes = {
        rule["action"]: rule["onExitCodes"]["values"]
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    assert codes == {"FailJob": [CONFIGURATION], "FailIndex": [DATA]}


def box(job: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]
    return found


def replace_argument(job: Manifest, before: str, after: str) -> None:
    box(job)["args"] = [word.replace(before, after) for word in box(job)["args"]]


SEEDS: dict[str, tuple[Callable[[Manifest], Any], str]] = {
    "pods that all make the same": (
        lambda job: replace_argument(job, "$(JOB_COMPLETION_INDEX)", "0"),
        "no argument has $(JOB_COMPLETION_INDEX), so every pod makes the same",
    ),
    "fewer pods than shards": (
        lambda job: job["spec"].update(completions=32),
        "has 32 completions, its pods make 64 shards",
    ),
    "pods that kubelet restarts": (
        lambda job: job["spec"]["template"]["spec"].update(restartPolicy="OnFailure"),
        "has a podFailurePolicy, expected restartPolicy: Never",
    ),
    "a policy about another container": (
        lambda job: box(job).update(name="main"),
        "a podFailurePolicy is about 'precompute', which it has not",
    ),
    "an index that cannot fail alone": (
        lambda job: job["spec"].pop("backoffLimitPerIndex"),
        "FailIndex without backoffLimitPerIndex is refused",
    ),
    "more chips than the shape has": (
        lambda job: [
            box(job)["resources"][side].update({"google.com/tpu": "4"})
            for side in ("requests", "limits")
        ],
        "asks for 4 chips, its shape 1x1 has another number",
    ),
    "more memory than the node has": (
        lambda job: [
            box(job)["resources"][side].update(memory="48Gi") for side in ("requests", "limits")
        ],
        "of memory, a ct5lp-hightpu-1t has",
    ),
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_seeded_mistake_is_named(name: str, rendered: Rendered) -> None:
    manifests = rendered(FOLDER)
    job = Objects(manifests).named("Job", "precompute-embeddings")
    assert job is not None
    seed, message = SEEDS[name]
    assert mistakes(manifests) == []

    seed(job)

    found = mistakes(manifests)
    assert any(
        line.startswith("Job/precompute-embeddings: ") and message in line for line in found
    ), found
