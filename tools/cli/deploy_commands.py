"""`muse deploy`: an overlay of k8s/ on a cluster. Imports nothing heavy until it is called."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from k8s.deployment.cluster import Cluster
    from k8s.deployment.overlays import Overlay

app = App(name="deploy", help="Renders an overlay of k8s/, applies it, and says how it is.")
ROLLOUT_S = 1800.0  # a node of a pool that starts, an image, 15 min of compilation
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_red")
Context = Annotated[str | None, Parameter(help="Context of the kubeconfig; the current one.")]
OverlayName = Annotated[str, Parameter(help="Such as gke-v5e, or a folder with a kustomization.")]


@app.command
def render(*, overlay: OverlayName) -> None:
    """Prints the objects of an overlay as YAML; needs no cluster."""
    with _packages():
        from k8s.deployment.overlays import open_overlay
    print(open_overlay(overlay).text, end="")


@app.command
def apply(
    *,
    overlay: OverlayName,
    context: Context = None,
    dry_run: bool = False,
    force_conflicts: bool = False,
    wait: bool = True,
    timeout_s: float = ROLLOUT_S,
) -> None:
    """Applies an overlay on the server and waits until every Deployment runs it.

    All objects are tried first; if one would be refused, none is changed.

    Parameters
    ----------
    dry_run
        Try them only.
    force_conflicts
        Take over fields that somebody else has set to another value.
    wait
        Wait for the roll-out.
    timeout_s
        Seconds to wait.
    """
    _check_timeout(timeout_s)
    with _packages():
        from k8s.deployment.applying import ApplyRefused, apply_all, try_all
        from k8s.deployment.rollouts import wait_for_rollouts
    opened, cluster, console = _open(overlay, context)
    opened.check_chips()
    try:
        tried = try_all(cluster, opened.manifests, force=force_conflicts)
    except ApplyRefused as error:
        for problem in error.problems:
            console.print(problem, markup=False, highlight=False)
        raise
    if dry_run:
        for each in tried:
            console.print(f"{each.title}: {each.outcome}", highlight=False)
        console.print("tried only: nothing was changed", highlight=False)
        return
    for each in apply_all(cluster, opened.manifests, tried, force=force_conflicts):
        console.print(f"{each.title}: {each.outcome}", highlight=False)
    if wait:
        names = [each["metadata"]["name"] for each in opened.deployments]
        wait_for_rollouts(cluster, opened.namespace, names, timeout_s=timeout_s, console=console)


@app.command
def status(*, overlay: OverlayName, context: Context = None) -> int:
    """Says how an overlay's Deployments, autoscalers and pods are.

    Exits with 1 unless every Deployment runs what was applied.
    """
    with _packages():
        from k8s.deployment.status import autoscalers_table, deployments_table, system_status
    opened, cluster, console = _open(overlay, context)
    found = system_status(cluster, opened)
    console.print(deployments_table(found))
    if found.autoscalers:
        console.print(autoscalers_table(found.autoscalers))
    for each in found.failures:
        console.print(str(each), markup=False, highlight=False)
    return 0 if found.ready else 1


@app.command
def logs(
    service: str | None = None,
    /,
    *,
    overlay: OverlayName,
    context: Context = None,
    follow: bool = False,
    since: str | None = None,
) -> None:
    """Prints the logs of all pods, each line after the name of its pod.

    Parameters
    ----------
    service
        Of this one alone, such as base.
    follow
        Go on with what comes, of pods that start later too; until Ctrl-C. Otherwise lines are in
        the order of their time.
    since
        Only the last 90s, 10m, 2h or 1d.
    """
    from rich.text import Text

    with _packages():
        from k8s.deployment.logs import coming_lines, parse_since, past_lines
    since_s = None if since is None else parse_since(since)
    opened, cluster, console = _open(overlay, context)
    deployments = opened.deployments if service is None else [_deployment(opened, service)]
    lines = coming_lines if follow else past_lines
    colours: dict[str, str] = {}
    for line in lines(cluster, opened.namespace, deployments, since_s=since_s):
        colour = colours.setdefault(line.pod, COLOURS[len(colours) % len(COLOURS)])
        said = Text.assemble((f"{line.pod} ", colour), line.text)
        console.print(said, soft_wrap=True, highlight=False)


@app.command
def scale(
    service: str,
    replicas: int,
    /,
    *,
    overlay: OverlayName,
    context: Context = None,
    wait: bool = True,
    timeout_s: float = ROLLOUT_S,
) -> None:
    """Sets the replicas of one service, unless an autoscaler does.

    The next `apply` of an overlay that says another number names it as a conflict.

    Parameters
    ----------
    service
        Such as base.
    replicas
        From 0 up.
    wait
        Wait until that many are ready.
    timeout_s
        Seconds to wait.
    """
    _check_timeout(timeout_s)
    with _packages():
        from k8s.deployment.rollouts import wait_for_rollouts
        from k8s.deployment.scaling import scale as set_scale
    opened, cluster, console = _open(overlay, context)
    name = str(_deployment(opened, service)["metadata"]["name"])
    found = cluster.get("apps/v1", "Deployment", opened.namespace, name)
    if found is None:
        raise ValueError(f"Deployment/{name} is not there: `muse deploy apply` makes it")
    for note in set_scale(cluster, opened.namespace, found, replicas):
        console.print(note, highlight=False)
    console.print(f"{name}: {found['spec'].get('replicas', 1)} -> {replicas}", highlight=False)
    if wait:
        wait_for_rollouts(cluster, opened.namespace, [name], timeout_s=timeout_s, console=console)


def _check_timeout(timeout_s: float) -> None:
    if not timeout_s > 0:
        raise ValueError(f"timeout_s: expected more than 0, got {timeout_s:g}")


def _open(overlay: str, context: str | None) -> "tuple[Overlay, Cluster, Any]":
    """Renders an overlay, reaches for a cluster and says which, before anything is asked of it."""
    import logging

    from rich.console import Console

    from k8s.deployment.cluster import Cluster
    from k8s.deployment.overlays import open_overlay

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of every retry
    opened, console = open_overlay(overlay), Console()
    cluster = Cluster(context)
    console.print(
        f"context {cluster.context}, {cluster.server}, namespace {opened.namespace}",
        highlight=False,
        soft_wrap=True,
    )
    return opened, cluster, console


def _deployment(overlay: "Overlay", service: str) -> Any:
    """Returns one Deployment of an overlay.

    Raises:
        ValueError: it has none of that name; names those it has.
    """
    found = {str(each["metadata"]["name"]): each for each in overlay.deployments}
    name = service.replace("_", "-")
    if name not in found:
        raise ValueError(f"service: expected one of {', '.join(sorted(found))}, got {service!r}")
    return found[name]


@contextmanager
def _packages() -> Iterator[None]:
    """Says kindly what is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "k8s":
            raise RuntimeError(
                "deploy needs the folder k8s/ of the repository, which is not part of this "
                "installation: run it from a checkout"
            ) from error
        raise RuntimeError(
            f"deploy talks to the API server of Kubernetes, and {error.name} is not installed: "
            'install the extra "discovery"'
        ) from error
