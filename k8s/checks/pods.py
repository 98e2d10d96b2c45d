"""What every pod of ours keeps to: rights, resources, probes, its end; and how Jobs share work."""

from collections.abc import Iterator
from typing import Any

from k8s.checks.objects import Workload, at, check_workloads, environment

USER = 65532
INDEX = "$(JOB_COMPLETION_INDEX)"
COMPILATION_S = 900  # the longest that a stage may compile before it is ready
CALLS = ("MUSE_HOST", "MUSE_TLS_", "MUSE_INSECURE", "MUSE_HEALTH_PORT")  # variables about calls
SLACK_S = 10.0  # for the last dispatch, the last spans and the interpreter's end
POD_RIGHTS: tuple[tuple[dict[str, Any], str], ...] = (
    (
        {"securityContext.runAsNonRoot": True, "securityContext.runAsUser": USER},
        f"runAsNonRoot and user {USER}",
    ),
    (
        {"securityContext.seccompProfile.type": "RuntimeDefault"},
        "the seccompProfile RuntimeDefault",
    ),
    ({"automountServiceAccountToken": False}, "automountServiceAccountToken: false"),
    (
        {"enableServiceLinks": False},
        "enableServiceLinks: false, since a Service named muse would set MUSE_PORT",
    ),
)
CONTAINER_RIGHTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"securityContext.allowPrivilegeEscalation": False}, "allowPrivilegeEscalation: false"),
    ({"securityContext.readOnlyRootFilesystem": True}, "readOnlyRootFilesystem: true"),
    ({"securityContext.capabilities.drop": ["ALL"]}, "all capabilities to be dropped"),
)
PROBES = {  # names that each probe may ask for over gRPC, and its path over HTTP
    "startupProbe": (("readiness", "liveness"), "/healthz"),
    "readinessProbe": (("readiness",), "/readyz"),
    "livenessProbe": (("liveness",), "/healthz"),
}


@check_workloads()
def pods_have_no_rights(each: Workload) -> Iterator[str]:
    """The restricted profile, and beyond it: one user, a root that is read-only, no token."""
    rules = [(each.pod, *rule) for rule in POD_RIGHTS]
    rules += [(box, *rule) for box in each.containers for rule in CONTAINER_RIGHTS]
    for tree, values, expected in rules:
        if any(
            repr(at(tree, path)) != repr(value) for path, value in values.items()
        ):  # 1 is no true
            yield f"expected {expected}"


@check_workloads()
def tokens_are_for_those_who_have_a_role(each: Workload) -> Iterator[str]:
    """Whoever calls the API server needs a token and a role; a token without a role is a risk."""
    bound = any(
        subject["name"] == each.account
        for binding in each.objects.of("RoleBinding")
        for subject in binding.get("subjects", ())
    )
    has_token = any(
        "serviceAccountToken" in source
        for volume in each.volumes.values()
        for source in at(volume, "projected.sources", ())
    )
    if has_token and not bound:
        yield f"has a token, but no RoleBinding names its account {each.account!r}"
    if bound and not has_token:
        yield f"its account {each.account!r} has a role, but the pod has no token"


@check_workloads()
def resources_are_said_and_kept(each: Workload) -> Iterator[str]:
    """Memory and chips are asked for as much as they may be used: neither can be lent."""
    for box in each.containers:
        requests, limits = (at(box, f"resources.{side}", {}) for side in ("requests", "limits"))
        for name in ("cpu", "memory"):
            if name not in requests:
                yield f"says no request of {name}"
        for name in sorted({*requests, *limits} - {"cpu", "ephemeral-storage"}):
            asked, most = requests.get(name), limits.get(name)
            if asked != most:
                yield f"{name} requests {asked} and limits {most}, expected the same"


@check_workloads()
def images_are_pinned(each: Workload) -> Iterator[str]:
    """The same manifest is the same program, tomorrow too."""
    for box in each.containers:
        _, _, tag = box["image"].rpartition("/")[2].partition(":")
        if tag in ("", "latest"):
            yield f"image {box['image']!r} has no version"


@check_workloads("Deployment")
def probes_ask_the_server(each: Workload) -> Iterator[str]:
    """Each probe asks the port that is served, by the name that means what the probe is for."""
    by, field = ("httpGet", "path") if each.component == "gateway" else ("grpc", "service")
    for box in each.containers:
        ports = {port["containerPort"] for port in box.get("ports", ())}
        for kind, (services, path) in PROBES.items():
            probe = at(box, f"{kind}.{by}")
            if probe is None:
                yield f"has no {kind} by {by}"
                continue
            if probe["port"] not in ports:
                yield f"its {kind} asks port {probe['port']}, which it has not"
            meant = services if by == "grpc" else (path,)
            if probe.get(field) not in meant:
                yield f"its {kind} asks for {probe.get(field)!r}, expected {' or '.join(meant)}"


@check_workloads("Deployment", component="stage")
def starting_may_take_its_time(each: Workload) -> Iterator[str]:
    """A stage compiles before it is ready; neither kubelet nor roll-out may give up before."""
    for probe in (box["startupProbe"] for box in each.containers if "startupProbe" in box):
        allowed_s = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
        if allowed_s < COMPILATION_S:
            yield f"its startupProbe allows {allowed_s} s, expected at least {COMPILATION_S}"
        if each.spec.get("progressDeadlineSeconds", 600) <= allowed_s:
            yield (
                f"its progressDeadlineSeconds must be above the {allowed_s} s of its startupProbe"
            )


@check_workloads("Deployment")
def pods_end_within_their_grace(each: Workload) -> Iterator[str]:
    """Kubelet kills at the end of the grace, which begins before the preStop hook."""
    grace_s = each.pod.get("terminationGracePeriodSeconds", 30)
    for box in each.containers:
        sleep_s = at(box, "lifecycle.preStop.sleep.seconds", 0)
        drain_s = float(environment(box).get("MUSE_GRACE_S") or 30)
        if not sleep_s:
            yield "has no preStop sleep, so it ends while it is still called"
        if sleep_s + drain_s + SLACK_S > grace_s:
            yield (
                f"preStop {sleep_s} s + drain {drain_s:g} s + {SLACK_S:g} s is more than "
                f"terminationGracePeriodSeconds {grace_s}"
            )


@check_workloads("Deployment")
def only_jobs_write_what_servers_run(each: Workload) -> Iterator[str]:
    """Whoever serves reads weights and compiled programs only: to write them is to run code."""
    if each.component == "gateway":  # it keeps pictures on a volume, and runs nothing of it
        return
    for mount in each.mounts:
        claimed = "persistentVolumeClaim" in each.volumes.get(mount["name"], {})
        if claimed and mount.get("readOnly") is not True:
            yield f"may write to {mount['name']!r}, expected readOnly: true"


@check_workloads(component="compile-job")
def jobs_compile_what_servers_run(job: Workload) -> Iterator[str]:
    """Programs are found again only by the same code, settings and chip."""
    stage = job.name.removeprefix("compile-")
    server = next(
        (each for each in job.objects.workloads("Deployment") if each.name == stage), None
    )
    if server is None:
        yield f"there is no Deployment {stage!r}"
        return
    whats = ("another image or other settings", "another node", "other resources")
    for what, mine, theirs in zip(whats, _programs(job), _programs(server), strict=True):
        if mine != theirs:
            yield f"{what} than {server.title}"


def _programs(workload: Workload) -> tuple[Any, Any, Any]:
    """Returns what a compiled program depends on: image and settings, node, resources.

    No program depends on who calls the server, and how.
    """
    box = workload.pod["containers"][0]
    settings = {
        name: value
        for name, value in environment(box).items()
        if name.startswith(("MUSE_", "JAX_", "XLA_")) and not name.startswith(CALLS)
    }
    return (box["image"], box["command"], settings), workload.node_selector, box["resources"]


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


@check_workloads("Job", "JobSet")
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
