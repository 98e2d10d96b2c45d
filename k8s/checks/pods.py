"""What every pod of ours keeps to: rights, resources, probes, and an end within its grace."""

from collections.abc import Iterator, Mapping
from typing import Any

from k8s.checks.objects import Objects, Workload, environment

USER = 65532
COMPILATION_S = 900  # the longest that a stage may compile before it is ready
SLACK_S = 10.0  # for the last dispatch, the last spans and the interpreter's end


def pods_have_no_rights(objects: Objects) -> Iterator[str]:
    """The restricted profile, and beyond it: one user, a root that is read-only, no token."""
    for each in objects.workloads():
        pod, security = each.pod, each.pod.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("runAsUser") != USER:
            yield f"{each.title}: expected runAsNonRoot and user {USER}"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{each.title}: expected the seccompProfile RuntimeDefault"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{each.title}: expected automountServiceAccountToken: false"
        if pod.get("enableServiceLinks") is not False:
            yield (
                f"{each.title}: expected enableServiceLinks: false, since a Service named muse "
                "would set MUSE_PORT"
            )
        for box in each.containers:
            own = box.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{each.title}: expected allowPrivilegeEscalation: false"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{each.title}: expected readOnlyRootFilesystem: true"
            if own.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{each.title}: expected all capabilities to be dropped"


def tokens_are_for_those_who_have_a_role(objects: Objects) -> Iterator[str]:
    """Whoever calls the API server needs a token and a role; a token without a role is a risk."""
    bound = {
        subject["name"]
        for binding in objects.of("RoleBinding")
        for subject in binding.get("subjects", ())
    }
    for each in objects.workloads():
        has_token = any(
            "serviceAccountToken" in source
            for volume in each.pod.get("volumes", ())
            for source in volume.get("projected", {}).get("sources", ())
        )
        account = each.pod.get("serviceAccountName", "default")
        if has_token and account not in bound:
            yield f"{each.title}: has a token, but no RoleBinding names its account {account!r}"
        if account in bound and not has_token:
            yield f"{each.title}: its account {account!r} has a role, but the pod has no token"


def resources_are_said_and_kept(objects: Objects) -> Iterator[str]:
    """Memory and chips are asked for as much as they may be used: neither can be lent."""
    for each in objects.workloads():
        for box in each.containers:
            resources = box.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            for name in ("cpu", "memory"):
                if name not in requests:
                    yield f"{each.title}: says no request of {name}"
            for name in sorted((set(requests) | set(limits)) - {"cpu", "ephemeral-storage"}):
                if requests.get(name) != limits.get(name):
                    yield (
                        f"{each.title}: {name} requests {requests.get(name)} and limits "
                        f"{limits.get(name)}, expected the same"
                    )


def images_are_pinned(objects: Objects) -> Iterator[str]:
    """The same manifest is the same program, tomorrow too."""
    for each in objects.workloads():
        for box in each.containers:
            _, _, tag = box["image"].rpartition("/")[2].partition(":")
            if tag in ("", "latest"):
                yield f"{each.title}: image {box['image']!r} has no version"


def probes_ask_the_server(objects: Objects) -> Iterator[str]:
    """Each probe asks the port that is served, by the name that means what the probe is for."""
    for each in objects.workloads():
        if each.kind != "Deployment":
            continue
        for box in each.containers:
            ports = {port["containerPort"] for port in box.get("ports", ())}
            for kind, meant in (
                ("startupProbe", ("readiness", "liveness")),
                ("readinessProbe", ("readiness",)),
                ("livenessProbe", ("liveness",)),
            ):
                probe = box.get(kind)
                if probe is None or "grpc" not in probe:
                    yield f"{each.title}: has no {kind} over gRPC"
                    continue
                port, name = probe["grpc"]["port"], probe["grpc"].get("service")
                if port not in ports:
                    yield f"{each.title}: its {kind} asks port {port}, which it has not"
                if name not in meant:
                    expected = " or ".join(meant)
                    yield f"{each.title}: its {kind} asks for {name!r}, expected {expected}"


def starting_may_take_its_time(objects: Objects) -> Iterator[str]:
    """A stage compiles before it is ready; neither kubelet nor roll-out may give up before."""
    for each in objects.workloads():
        if each.kind != "Deployment" or each.component != "stage":
            continue
        for box in each.containers:
            probe = box.get("startupProbe")
            if probe is None:
                continue  # said by another check
            allowed_s = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
            if allowed_s < COMPILATION_S:
                yield (
                    f"{each.title}: its startupProbe allows {allowed_s} s, expected at least "
                    f"{COMPILATION_S}"
                )
            if each.spec.get("progressDeadlineSeconds", 600) <= allowed_s:
                yield (
                    f"{each.title}: its progressDeadlineSeconds must be above the {allowed_s} s of "
                    "its startupProbe"
                )


def pods_end_within_their_grace(objects: Objects) -> Iterator[str]:
    """Kubelet kills at the end of the grace, which begins before the preStop hook."""
    for each in objects.workloads():
        if each.kind != "Deployment":
            continue
        for box in each.containers:
            sleep_s = box.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            drain_s = float(environment(box).get("MUSE_GRACE_S") or 30)
            grace_s = each.pod.get("terminationGracePeriodSeconds", 30)
            if not sleep_s:
                yield f"{each.title}: has no preStop sleep, so it ends while it is still called"
            if sleep_s + drain_s + SLACK_S > grace_s:
                yield (
                    f"{each.title}: preStop {sleep_s} s + drain {drain_s:g} s + {SLACK_S:g} s is "
                    f"more than terminationGracePeriodSeconds {grace_s}"
                )


def only_jobs_write_what_servers_run(objects: Objects) -> Iterator[str]:
    """Whoever serves reads weights and compiled programs only: to write them is to run code."""
    for each in objects.workloads():
        if each.kind != "Deployment":
            continue
        writable = {
            volume["name"]
            for volume in each.pod.get("volumes", ())
            if "persistentVolumeClaim" in volume
        }
        for mount in (mount for box in each.containers for mount in box.get("volumeMounts", ())):
            if mount["name"] in writable and mount.get("readOnly") is not True:
                yield f"{each.title}: may write to {mount['name']!r}, expected readOnly: true"


def jobs_compile_what_servers_run(objects: Objects) -> Iterator[str]:
    """Programs are found again only by the same code, settings and chip."""
    for job in objects.workloads():
        if job.component != "compile-job":
            continue
        stage = job.name.removeprefix("compile-")
        server = next(
            (each for each in objects.workloads() if each.title == f"Deployment/{stage}"), None
        )
        if server is None:
            yield f"{job.title}: there is no Deployment {stage!r}"
            continue
        for what, mine, theirs in zip(
            ("another image or other settings", "another node", "other resources"),
            _programs(job),
            _programs(server),
            strict=True,
        ):
            if mine != theirs:
                yield f"{job.title}: {what} than {server.title}"


def _programs(workload: Workload) -> tuple[Any, Any, Any]:
    box: Mapping[str, Any] = workload.pod["containers"][0]
    settings = {
        name: value
        for name, value in environment(box).items()
        if name.startswith(("MUSE_", "JAX_", "XLA_"))
    }
    return (
        (box["image"], box["command"], settings),
        workload.pod.get("nodeSelector"),
        box["resources"],
    )
