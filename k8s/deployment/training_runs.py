"""Training runs: an overlay of k8s/training made for each, rendered, and handed to kubectl."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from k8s.checks.rendering import render
from k8s.machines import ACCELERATOR, TOPOLOGY, TPU, Slice

TRAINING = Path(__file__).parents[1] / "training"
NAMESPACE = "muse-training"
WORK = "/work"  # where the bucket is mounted
# The first pod's address, NAME-trainer-0-0.NAME, is the value of a label: 63 characters.
LONGEST_NAME = (63 - len("-trainer-0-0.")) // 2
SHARE = 0.75  # of a host's cores and memory; the bucket's sidecar and the system have the rest
PORT = 8476


class LaunchError(RuntimeError):
    """A run that kubectl did not take; the message says why."""


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A run on the hosts of one TPU slice.

    Attributes:
        name: Of the JobSet, at most LONGEST_NAME characters.
        arguments: Of `python -m training` in every pod, without those that name the processes.
        slice: The hosts.
        image: With a tag or digest; None takes that of k8s/training.
        bucket: Name of a Cloud Storage bucket, mounted at WORK; None takes that of k8s/training.

    Raises:
        ValueError: Kubernetes would refuse the name, or the image has no version.
    """

    name: str
    arguments: Sequence[str]
    slice: Slice
    image: str | None = None
    bucket: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", self.name):
            raise ValueError(
                "name: expected lower-case letters, digits and hyphens, a letter first and no "
                f"hyphen last, got {self.name!r}"
            )
        if len(self.name) > LONGEST_NAME:
            raise ValueError(
                f"name: expected at most {LONGEST_NAME} characters, since the hosts' names contain "
                f"it twice, got {len(self.name)}: {self.name!r}"
            )
        if self.image is not None and ":" not in self.image.rpartition("/")[2]:
            raise ValueError(
                "image: expected a tag or digest, so that a restarted run is the same program, "
                f"got {self.image!r}"
            )


def render_run(run: TrainingRun) -> str:
    """Returns the YAML of everything a run needs: namespace, account, bucket and JobSet.

    Raises:
        RenderError: neither kubectl nor kustomize is here, or k8s/training cannot be rendered.
    """
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder).resolve() / "kustomization.yaml"
        overlay.write_text(yaml.safe_dump(_overlay(run, overlay.parent), sort_keys=False))
        return render(overlay.parent)


def apply_run(manifests: str, context: str | None = None) -> str:
    """Hands rendered manifests to the API server, and returns what kubectl says of each object.

    Args:
        manifests: Of `render_run`.
        context: Context of the kubeconfig; None takes the current one.

    Raises:
        ValueError: the image or the bucket is still the example of k8s/training.
        LaunchError: kubectl is not here, or it or the server refuses.
    """
    for flag, example in (("image", "image: example."), ("bucket", "volumeHandle: example-")):
        if example in manifests:
            raise ValueError(
                f"{flag}: k8s/training names only an example: expected --{flag} of your own"
            )
    if shutil.which("kubectl") is None:
        raise LaunchError(
            "no kubectl on the PATH: install it (https://kubernetes.io/docs/tasks/tools), or apply "
            "what --dry-run prints elsewhere"
        )
    command = ["kubectl", "apply", "--server-side", "--filename=-"]
    command += [f"--context={context}"] if context is not None else []
    done = subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LaunchError(f"kubectl apply: {done.stderr.strip()}")
    return done.stdout


def _overlay(run: TrainingRun, folder: Path) -> dict[str, Any]:
    """Returns the kustomization of a run, for a folder; kustomize wants relative paths."""
    patches = [_patch("JobSet", _changes(run))]
    if run.bucket is not None:
        handle = {"op": "replace", "path": "/spec/csi/volumeHandle", "value": run.bucket}
        patches.append(_patch("PersistentVolume", [handle]))
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(TRAINING.resolve(), folder)],
        "patches": patches,
    }


def _patch(kind: str, changes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "target": {"kind": kind},
        "patch": yaml.safe_dump(changes),
        "options": {"allowNameChange": True},
    }


def _changes(run: TrainingRun) -> list[dict[str, Any]]:
    """Returns the JSON patch that makes the JobSet of k8s/training the run's."""
    hosts, machine = run.slice.hosts, run.slice.machine
    job = "/spec/replicatedJobs/0/template/spec"
    box = f"{job}/template/spec/containers/0"
    kept = {
        "memory": f"{int(machine.memory * SHARE / 2**30)}Gi",
        TPU: str(run.slice.chips),
    }
    values: dict[str, Any] = {
        "/metadata/name": run.name,
        f"{job}/parallelism": hosts,
        f"{job}/completions": hosts,
        f"{job}/template/metadata/labels/app.kubernetes.io~1name": run.name,
        f"{job}/template/spec/nodeSelector": {
            ACCELERATOR: run.slice.accelerator,
            TOPOLOGY: run.slice.topology,
        },
        f"{box}/args": [
            *run.arguments,
            f"--coordinator=$(COORDINATOR):{PORT}",
            f"--processes={hosts}",
            "--process-id=$(JOB_COMPLETION_INDEX)",
        ],
        f"{box}/resources": {
            "requests": {"cpu": str(int(machine.cpu * SHARE)), **kept},
            "limits": kept,
        },
    }
    if run.image is not None:
        values[f"{box}/image"] = run.image
    return [{"op": "replace", "path": path, "value": value} for path, value in values.items()]
