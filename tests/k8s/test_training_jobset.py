"""The JobSet of k8s/training: flags of its pods, how it restarts, mistakes in it."""

from collections.abc import Callable
from typing import Any

import pytest

from k8s.checks.cross_object import mistakes
from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest

FOLDER = "k8s/training"
Rendered = Callable[[str], list[Manifest]]


def job(jobset: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    return found


def box(jobset: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = job(jobset)["template"]["spec"]["containers"][0]
    return found


def jobset_of(manifests: list[Manifest]) -> Manifest:
    (found,) = Objects(manifests).of("JobSet")
    return found


def test_the_command_understands_the_flags_of_each_pod(rendered: Rendered) -> None:
    from training.__main__ import app

    jobset = jobset_of(rendered(FOLDER))
    hosts = job(jobset)["completions"]
    assert box(jobset)["command"] == ["python", "-m", "training"]
    for index in range(hosts):
        words = [
            word.replace("$(JOB_COMPLETION_INDEX)", str(index)).replace(
                "$(COORDINATOR)", "train-base-trainer-0-0.train-base"
            )
            for word in box(jobset)["args"]
        ]
        _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        devices = bound.arguments["devices"]
        assert devices.coordinator == "train-base-trainer-0-0.train-base:8476"
        assert (devices.processes, devices.process_id) == (hosts, index)
        assert devices.mesh == f"fsdp={4 * hosts}"


def test_interruptions_restart_the_set_and_are_not_counted(rendered: Rendered) -> None:
    from training.__main__ import INTERRUPTED

    jobset = jobset_of(rendered(FOLDER))
    disrupted, interrupted = job(jobset)["podFailurePolicy"]["rules"]
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]

    assert disrupted["action"] == interrupted["action"] == "FailJob"
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert interrupted["onExitCodes"]["values"] == [INTERRUPTED]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0


def replace_argument(jobset: Manifest, before: str, after: str) -> None:
    box(jobset)["args"] = [word.replace(before, after) for word in box(jobset)["args"]]


def set_mount_options(manifests: list[Manifest], options: list[str]) -> None:
    (bucket,) = Objects(manifests).of("PersistentVolume")
    bucket["spec"]["mountOptions"] = options


SEEDS: dict[str, tuple[Callable[[Manifest], Any], str]] = {
    "hosts that wait for others to end": (
        lambda each: job(each).update(completions=8),
        "4 pods run at once, expected all 8",
    ),
    "a pod that is replaced alone": (
        lambda each: job(each).pop("backoffLimit"),
        "its pods are replaced one by one, expected backoffLimit: 0",
    ),
    "a disrupted pod that is replaced alone": (
        lambda each: job(each)["podFailurePolicy"]["rules"][0].update(action="Ignore"),
        "its podFailurePolicy has Ignore, expected FailJob",
    ),
    "pods that kubelet restarts": (
        lambda each: job(each)["template"]["spec"].update(restartPolicy="OnFailure"),
        "has a podFailurePolicy, expected restartPolicy: Never",
    ),
    "more processes than pods": (
        lambda each: replace_argument(each, "--processes=4", "--processes=8"),
        "has 4 pods, their --processes is 8",
    ),
    "processes that are all the first": (
        lambda each: replace_argument(each, "$(JOB_COMPLETION_INDEX)", "0"),
        "its --process-id is 0, expected $(JOB_COMPLETION_INDEX)",
    ),
    "a coordinator at another port": (
        lambda each: replace_argument(each, ":8476", ":8477"),
        "its --coordinator is $(COORDINATOR):8477, expected a variable from",
    ),
    "an address that no variable has": (
        lambda each: box(each)["env"].pop(0),
        "its --coordinator is $(COORDINATOR):8476, expected a variable from",
    ),
    "a set without a coordinator": (
        lambda each: each["spec"].pop("coordinator"),
        "its coordinator is in None, expected one of ['trainer']",
    ),
    "fewer hosts than the slice has": (
        lambda each: job(each).update(parallelism=2, completions=2),
        "asks for 2 hosts x 4 chips, its shape 4x4 has another number",
    ),
    "chips that no machine has": (
        lambda each: [
            box(each)["resources"][side].update({"google.com/tpu": "2"})
            for side in ("requests", "limits")
        ],
        "asks for 2 google.com/tpu, a node with tpu-v5-lite-podslice has 1 or 4 or 8",
    ),
    "more memory than the host has": (
        lambda each: [
            box(each)["resources"][side].update(memory="192Gi") for side in ("requests", "limits")
        ],
        "asks for 2.06e+11 of memory, a ct5lp-hightpu-4t has 1.63e+11 for pods",
    ),
    "a container that may write its root": (
        lambda each: box(each)["securityContext"].update(readOnlyRootFilesystem=False),
        "expected readOnlyRootFilesystem: true",
    ),
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_seeded_mistake_is_named(name: str, rendered: Rendered) -> None:
    manifests = rendered(FOLDER)
    seed, message = SEEDS[name]
    assert mistakes(manifests) == []

    seed(jobset_of(manifests))

    found = mistakes(manifests)
    assert any(line.startswith("JobSet/train-base") and message in line for line in found), found


@pytest.mark.parametrize(("length", "fits"), [(25, True), (26, False)])
def test_a_name_is_too_long_once_the_coordinators_address_is(
    length: int, fits: bool, rendered: Rendered
) -> None:
    manifests = rendered(FOLDER)
    jobset_of(manifests)["metadata"]["name"] = "a" * length

    found = mistakes(manifests)

    assert (found == []) == fits
    assert all("has more than 63 characters" in line for line in found)


def test_a_bucket_whose_folders_cannot_be_renamed_is_named(rendered: Rendered) -> None:
    manifests = rendered(FOLDER)
    set_mount_options(manifests, ["implicit-dirs"])

    (line,) = mistakes(manifests)

    assert "writes states to PersistentVolume/muse-training, expected file-system:rename" in line
