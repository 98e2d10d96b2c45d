"""Indexed Jobs: each pod makes a part, and together they make the whole."""

from collections.abc import Iterator

from k8s.checks.objects import Workload, at
from k8s.checks.rules import check_workloads

INDEX = "$(JOB_COMPLETION_INDEX)"


@check_workloads("Job")
def indexed_jobs_make_the_whole(each: Workload) -> Iterator[str]:
    """A job whose pods count other shards than it has completions leaves some out, unseen."""
    completions = each.spec.get("completions")
    for box in each.pod["containers"] if each.spec.get("completionMode") == "Indexed" else ():
        flags = dict(word.split("=", 1) for word in box.get("args", ()) if "=" in word)
        if INDEX not in flags.values():
            yield f"no argument has {INDEX}, so every pod makes the same"
        shards = flags.get("--shards")
        if shards != str(completions):
            yield f"has {completions} completions, its pods make {shards} shards"


@check_workloads("Job")
def failure_policies_can_be_kept(each: Workload) -> Iterator[str]:
    """The API server takes a podFailurePolicy only where kubelet does not restart by itself."""
    if "podFailurePolicy" not in each.spec:
        return
    if each.pod.get("restartPolicy") != "Never":
        yield "has a podFailurePolicy, expected restartPolicy: Never"
    names = {box["name"] for box in each.containers}
    for rule in each.spec["podFailurePolicy"]["rules"]:
        name = at(rule, "onExitCodes.containerName")
        if name is not None and name not in names:
            yield f"a podFailurePolicy is about {name!r}, which it has not"
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in each.spec:
            yield "FailIndex without backoffLimitPerIndex is refused"
