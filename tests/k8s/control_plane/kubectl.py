"""kubectl against the control plane of KUBECONFIG, for whatever changes it."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from k8s.checks.rendering import PINNED, Manifest, renderer

TIMEOUT_S = 180.0


class KubectlFailed(RuntimeError):
    """kubectl ended with an error; the message is what it wrote about it."""


def kubectl(*words: str, stdin: Any = None) -> str:
    """Runs kubectl and returns its output.

    Args:
        words: Of the command, without kubectl itself.
        stdin: An object that it reads as JSON; None for nothing.

    Raises:
        KubectlFailed: it ended with an error.
    """
    command = renderer() or ["kubectl"]
    program = "kubectl" if command[0] == "kubectl" else str(PINNED)
    given = "" if stdin is None else json.dumps(stdin)
    done = subprocess.run(
        [program, *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise KubectlFailed(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def apply(manifest: Manifest, *, dry_run: bool = False) -> None:
    """Applies an object on the server; a dry run changes nothing."""
    words = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
    kubectl(*words, *(["--dry-run=server"] if dry_run else []), stdin=manifest)


def delete(manifest: Manifest, *options: str) -> None:
    """Deletes an object, if it is there, without waiting for its end."""
    metadata = manifest["metadata"]
    where = ["-n", metadata["namespace"]] if "namespace" in metadata else []
    kubectl(
        "delete", manifest["kind"], metadata["name"], *where, "--ignore-not-found", "--wait=false",
        *options,
    )  # fmt: skip


def evict(namespace: str, pod: str) -> None:
    """Requests that a pod leaves its node, as a drain does; its budget may refuse."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=body)


def patch_status(kind: str, name: str, status: Mapping[str, Any], *where: str) -> None:
    """Sets the status of an object, as its kubelet does; one that is gone stays so."""
    patch = json.dumps({"status": status})
    try:
        kubectl(
            "patch", kind, name, *where, "--subresource=status", "--type=merge", "--patch", patch
        )
    except KubectlFailed as error:
        if "NotFound" not in str(error):
            raise
