"""Indexed Jobs: each pod makes a part, and together they make the whole."""

from collections.abc import Iterator

from k8s.checks.objects import Objects

INDEX = "$(JOB_COMPLETION_INDEX)"


def indexed_jobs_make_the_whole(objects: Objects) -> Iterator[str]:
    """A job whose pods count other shards than it has completions leaves some out, unseen."""
    for each in objects.workloads():
        if each.kind != "Job" or each.spec.get("completionMode") != "Indexed":
            continue
        completions = each.spec.get("completions")
        for box in each.pod["containers"]:
            flags = dict(word.split("=", 1) for word in box.get("args", ()) if "=" in word)
            if INDEX not in flags.values():
                yield f"{each.title}: no argument has {INDEX}, so every pod makes the same"
            if flags.get("--shards") != str(completions):
                yield (
                    f"{each.title}: has {completions} completions, its pods make "
                    f"{flags.get('--shards')} shards"
                )


def failure_policies_can_be_kept(objects: Objects) -> Iterator[str]:
    """The API server takes a podFailurePolicy only where kubelet does not restart by itself."""
    for each in objects.workloads():
        policy = each.spec.get("podFailurePolicy")
        if each.kind != "Job" or policy is None:
            continue
        if each.pod.get("restartPolicy") != "Never":
            yield f"{each.title}: has a podFailurePolicy, expected restartPolicy: Never"
        names = {box["name"] for box in each.containers}
        for rule in policy["rules"]:
            name = rule.get("onExitCodes", {}).get("containerName")
            if name is not None and name not in names:
                yield f"{each.title}: a podFailurePolicy is about {name!r}, which it has not"
            if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in each.spec:
                yield f"{each.title}: FailIndex without backoffLimitPerIndex is refused"
