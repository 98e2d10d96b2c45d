"""JobSets: pods that are one run, so that they start, find each other, and end together."""

from collections.abc import Iterator

from k8s.checks.objects import Check, Objects, Workload, at, check_workloads, title
from k8s.checks.pods import INDEX

LONGEST_NAME = 63  # of a pod, whose name is a label of DNS, and of the value of a label
COORDINATOR = "metadata.annotations['jobset.sigs.k8s.io/coordinator']"


@check_workloads("JobSet")
def all_hosts_run_at_once(each: Workload) -> Iterator[str]:
    """A pod that waits for another to end, or is replaced alone, stops all."""
    hosts, completions = each.spec.get("parallelism", 1), each.spec.get("completions")
    if hosts != completions:
        yield f"{hosts} pods run at once, expected all {completions}"
    if each.spec.get("backoffLimit", 6) != 0:
        yield "its pods are replaced one by one, expected backoffLimit: 0"
    for rule in at(each.spec, "podFailurePolicy.rules", ()):
        if rule["action"] != "FailJob":
            yield f"its podFailurePolicy has {rule['action']}, expected FailJob"


@check_workloads("JobSet")
def processes_are_the_pods(each: Workload) -> Iterator[str]:
    """JAX waits for `--processes` processes, each with an id of its own."""
    for box in each.pod["containers"]:
        flags = dict(word.split("=", 1) for word in box.get("args", ()) if "=" in word)
        if flags.get("--processes") != str(each.spec.get("completions")):
            yield (
                f"has {each.spec.get('completions')} pods, their --processes is "
                f"{flags.get('--processes')}"
            )
        if flags.get("--process-id") != INDEX:
            yield f"its --process-id is {flags.get('--process-id')}, expected {INDEX}"
        addresses = {
            f"$({entry['name']}):{port['containerPort']}"
            for entry in box.get("env", ())
            for port in box.get("ports", ())
            if at(entry, "valueFrom.fieldRef.fieldPath") == COORDINATOR
        }
        if flags.get("--coordinator") not in addresses:
            yield (
                f"its --coordinator is {flags.get('--coordinator')}, expected a variable from "
                f"{COORDINATOR} and a port of the pod"
            )


@Check
def coordinators_are_there(objects: Objects) -> Iterator[str]:
    """JobSet writes the annotation only if the set names its coordinator."""
    for each in objects.of("JobSet"):
        jobs = [job["name"] for job in each["spec"]["replicatedJobs"]]
        named = at(each, "spec.coordinator.replicatedJob")
        if named not in jobs:
            yield f"{title(each)}: its coordinator is in {named!r}, expected one of {jobs}"


@Check
def names_fit(objects: Objects) -> Iterator[str]:
    """JobSet refuses a set whose pods' names, or whose coordinator's address, would be too long.

    Source: pkg/webhooks/jobset_webhook.go of kubernetes-sigs/jobset v0.12.0.
    """
    for each in objects.of("JobSet"):
        name = each["metadata"]["name"]
        for job in each["spec"]["replicatedJobs"]:
            last = job["template"]["spec"].get("completions", 1) - 1
            pod = f"{name}-{job['name']}-{job.get('replicas', 1) - 1}-{last}-abcde"
            address = f"{name}-{job['name']}-0-0.{name}"
            for text in (pod, address):
                if len(text) > LONGEST_NAME:
                    yield f"{title(each)}: {text!r} has more than {LONGEST_NAME} characters"


@check_workloads("JobSet")
def states_can_be_renamed(each: Workload) -> Iterator[str]:
    """Orbax renames the folder of each state, which gcsfuse refuses unless it is allowed to."""
    for volume in each.volumes.values():
        claim = each.objects.named(
            "PersistentVolumeClaim", at(volume, "persistentVolumeClaim.claimName", "")
        )
        bucket = claim and each.objects.named("PersistentVolume", claim["spec"]["volumeName"])
        if not bucket or at(bucket, "spec.csi.driver") != "gcsfuse.csi.storage.gke.io":
            continue
        options = bucket["spec"].get("mountOptions", ())
        if not any("rename-dir-limit:" in option for option in options):
            yield (
                f"writes states to PersistentVolume/{bucket['metadata']['name']}, expected "
                "file-system:rename-dir-limit among its mountOptions"
            )
