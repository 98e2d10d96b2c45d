"""`muse deploy`: what kubectl does not do for an overlay of k8s/. Imports nothing heavy early."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from cyclopts import App, Parameter

app = App(
    name="deploy",
    help="Checks an overlay of k8s/ before it is applied, and explains what is not ready after.",
)
OverlayName = Annotated[str, Parameter(help="Such as gke-v5e, or a folder with a kustomization.")]


@app.command
def check(*, overlay: OverlayName, context: str | None = None) -> int:
    """Checks an overlay: schemas, node shapes and chips, the call graph, the servers' settings.

    Prints one line for each mistake, and exits with 1 if there is one. Changes nothing.

    Parameters
    ----------
    context
        Context of the kubeconfig; its cluster's nodes are checked for the chips, too. Without one,
        no cluster is needed.
    """
    with _packages("manifests"):
        from k8s.checks.cross_object import mistakes
        from k8s.checks.schemas import schema_mistakes
        from k8s.deployment.cluster import Cluster
        from k8s.deployment.nodes import node_mistakes
        from k8s.deployment.overlays import open_overlay
    manifests = open_overlay(overlay)
    # Objects that are not what their schemas say cannot be compared with others.
    found = schema_mistakes(manifests) or mistakes(manifests)
    if context is not None:
        cluster = Cluster(context)
        print(f"context {cluster.context}, {cluster.server}")
        found += node_mistakes(manifests, cluster.objects("v1", "Node"))
    for line in found:
        print(line)
    print(f"{overlay}: {len(manifests)} objects, {len(found)} mistakes")
    return 1 if found else 0


@app.command
def explain(*, overlay: OverlayName, context: str | None = None) -> int:
    """Explains why an overlay's Deployments are not ready.

    Names the image that cannot be pulled, the crash loop with the container's last lines, the quota
    or the admission that refuses pods, or the scheduler's sentence. Exits with 1 unless every
    Deployment has rolled out. Changes nothing.

    Parameters
    ----------
    context
        Context of the kubeconfig; the current one if it is left out.
    """
    with _packages("discovery"):
        from k8s.deployment.cluster import Cluster
        from k8s.deployment.failures import failures, rollout_state
        from k8s.deployment.overlays import namespace_of, open_overlay
    wanted = [each for each in open_overlay(overlay) if each["kind"] == "Deployment"]
    namespace, cluster = namespace_of(overlay, wanted), Cluster(context)
    print(f"context {cluster.context}, {cluster.server}, namespace {namespace}")
    states = {each["metadata"]["name"]: "is not there" for each in wanted}
    deployments = cluster.objects("apps/v1", "Deployment", namespace)
    live = [each for each in deployments if each["metadata"]["name"] in states]
    states |= {each["metadata"]["name"]: rollout_state(each) for each in live}
    for name, state in sorted(states.items()):
        if state:
            print(f"deployment {name}: {state}")
    for failure in failures(cluster, namespace, live, cluster.objects("v1", "Pod", namespace)):
        print(failure)
    if any(states.values()):
        return 1
    print(f"all {len(states)} Deployments have rolled out")
    return 0


@contextmanager
def _packages(extra: str) -> Iterator[None]:
    """Turns a failed import into a message that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "k8s":
            raise RuntimeError(
                "deploy needs the folder k8s/ of the repository, which is not part of this "
                "installation: run it from a checkout"
            ) from error
        raise RuntimeError(
            f'deploy needs {error.name}, which is not installed: install the extra "{extra}"'
        ) from error
