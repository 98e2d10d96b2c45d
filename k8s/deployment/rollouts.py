"""How far each Deployment is, and the wait until all of them run what was applied."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from k8s.checks.rendering import Manifest
from k8s.deployment.cluster import Cluster, ClusterError
from k8s.deployment.failures import Failure, failures

PAUSE_S = 1.0  # between two looks
PATIENCE_S = 60.0  # for a pod that is stuck: registries and volumes do come back


class RolloutFailed(ClusterError):
    """Some Deployments do not run what was applied; the message names them."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How far a Deployment is.

    Attributes:
        name: Of the Deployment.
        wanted: Replicas it should have.
        ready: Replicas of the newest revision that serve, as far as can be told.
        state: What it waits for; "" once it is done.
        given_up: Whether its controller has stopped waiting.
    """

    name: str
    wanted: int
    ready: int
    state: str
    given_up: bool


def rollout(deployment: Manifest) -> Rollout:
    """Returns how far a Deployment is.

    Source: `kubectl rollout status`, which looks at the same numbers.
    """
    metadata, status = deployment["metadata"], deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    state = ""
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        state, updated = "its controller has not seen the change", 0
    elif updated < wanted:
        state = f"{updated} of {wanted} new pods are made"
    elif status.get("replicas", 0) > updated:
        state = f"{status['replicas'] - updated} old pods are still to end"
    elif available < updated:
        state = f"{available} of {updated} pods are ready"
    given_up = any(
        each["type"] == "Progressing" and each.get("reason") == "ProgressDeadlineExceeded"
        for each in status.get("conditions", ())
    )
    return Rollout(
        name=metadata["name"],
        wanted=wanted,
        ready=min(updated, available),
        state=state,
        given_up=bool(state) and given_up,
    )


def wait_for_rollouts(
    cluster: Cluster, namespace: str, names: Collection[str], *, timeout_s: float, console: Console
) -> None:
    """Waits until Deployments run what was applied, and shows how far they are.

    Ends before the time is over if the controller of one has given up, or if a pod has been stuck
    for PATIENCE_S. An API server that does not answer, or says that it cannot now, is waited for.

    Args:
        cluster: Where they are.
        namespace: Of the Deployments.
        names: Of the Deployments.
        timeout_s: Seconds to wait.
        console: Where progress and failures are shown.

    Raises:
        RolloutFailed: some do not; why is on the console.
        ClusterError: how far they are cannot be asked.
    """
    end = time.monotonic() + timeout_s
    stuck_since: dict[str, float] = {}
    shown: set[str] = set()
    with _progress(console) as progress:
        bars = {name: progress.add_task(name, total=1, state="") for name in sorted(names)}
        waiting: list[Rollout] = []
        failed: list[Failure] = []
        while True:
            try:
                found, failed = _look(cluster, namespace, names)
            except ClusterError as error:
                if not error.passing:
                    raise
                _show_new({"": str(error)}, shown, progress.console)
            else:
                for each in found:
                    progress.update(
                        bars[each.name], total=each.wanted, completed=each.ready, state=each.state
                    )
                waiting = [each for each in found if each.state]
                if not waiting:
                    return
                _show_new(
                    {f"{each.pod} {each.kind}": str(each) for each in failed},
                    shown,
                    progress.console,
                )
            now = time.monotonic()
            stuck = {each.pod or each.deployment for each in failed if each.stuck}
            stuck_since = {name: stuck_since.get(name, now) for name in stuck}
            hopeless = any(now - since >= PATIENCE_S for since in stuck_since.values())
            if hopeless or any(each.given_up for each in waiting) or now > end:
                why = f"after {timeout_s:g} s" if now > end else "and will not by waiting"
                for failure in failed:
                    progress.console.print(str(failure), markup=False, highlight=False)
                who = (f"Deployment/{each.name} ({each.state})" for each in waiting)
                raise RolloutFailed(f"not rolled out {why}: {'; '.join(who) or 'not known'}")
            time.sleep(PAUSE_S)


def _look(
    cluster: Cluster, namespace: str, names: Collection[str]
) -> tuple[list[Rollout], list[Failure]]:
    """Returns how far each Deployment is, and why those that are not done are not.

    Raises:
        RolloutFailed: one is not there.
    """
    deployments = [
        each
        for each in cluster.objects("apps/v1", "Deployment", namespace)
        if each["metadata"]["name"] in names
    ]
    found = [rollout(each) for each in deployments]
    for name in sorted(set(names) - {each.name for each in found}):
        raise RolloutFailed(f"Deployment/{name}: somebody has deleted it")
    waiting = {each.name for each in found if each.state}
    if not waiting:
        return found, []
    late = [each for each in deployments if each["metadata"]["name"] in waiting]
    return found, failures(cluster, namespace, late, cluster.objects("v1", "Pod", namespace))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
        console=console,
    )


def _show_new(said: Mapping[str, str], shown: set[str], console: Console) -> None:
    """Shows the first line of what was not shown before, by what it is about."""
    for about, text in said.items():
        if about not in shown:
            shown.add(about)
            console.print(text.partition("\n")[0], markup=False, highlight=False)
