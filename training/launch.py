"""`python -m training launch`: one run on the hosts of a TPU slice, as a JobSet of Kubernetes."""

import math
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from services.presets import preset as named_preset
from training.mesh import parse_mesh

Stage = Literal["tokenizer", "text_encoder", "base", "superres"]
Switch = Annotated[bool, Parameter(negative=())]
REMOTE = ("gs:", "s3:")


def launch_command(training: App) -> Callable[..., None]:
    """Returns the command; it reads the run's flags as `training`, the app of the stages, would."""

    def launch(
        stage: Stage,
        *flags: Annotated[str, Parameter(allow_leading_hyphen=True)],
        hosts: int,
        accelerator: str = "tpu-v5-lite-podslice",
        topology: str | None = None,
        name: str | None = None,
        image: str | None = None,
        bucket: str | None = None,
        context: str | None = None,
        dry_run: Switch = False,
        apply: Switch = False,
    ) -> None:
        """Trains a stage on the hosts of a TPU slice of GKE; needs kubectl, and JobSet there.

        Parameters
        ----------
        stage
            What to train.
        flags
            Those of the stage's own command, such as --preset and --data. Folders are those of the
            pods, which have the bucket at /work.
        hosts
            Nodes of the slice.
        accelerator
            As GKE labels its nodes.
        topology
            Chips of the slice in each direction, such as 4x4; by default what the hosts have.
        name
            Name of the JobSet; by default train-STAGE. Another one runs beside it.
        image
            Training image with a tag; by default that of k8s/training.
        bucket
            Cloud Storage bucket of data, runs and checkpoints; by default that of k8s/training.
        context
            Context of the kubeconfig; by default the current one.
        dry_run
            Prints the manifests, and changes nothing.
        apply
            Hands them to kubectl.
        """
        try:
            from k8s.checks.rendering import RenderError
            from k8s.deployment.training_runs import (
                NAMESPACE,
                WORK,
                LaunchError,
                TrainingRun,
                apply_run,
                render_run,
            )
            from k8s.machines import tpu_slice
        except ModuleNotFoundError as error:  # an image has no k8s/
            raise ValueError(
                f"launch needs {error.name}, which is not installed: run it from a checkout"
            ) from error
        if dry_run == apply:
            raise ValueError(
                "expected --dry-run, which prints the manifests, or --apply, which hands them to "
                f"kubectl, got {'both' if apply else 'neither'}"
            )
        hosts_of_run = tpu_slice(accelerator, hosts, topology)
        _, bound, _ = training.parse_args([stage, *flags])
        _check_run(bound.arguments, hosts_of_run.hosts * hosts_of_run.chips, WORK)
        run = TrainingRun(
            name=name or f"train-{stage.replace('_', '-')}",
            arguments=[stage, *flags],
            slice=hosts_of_run,
            image=image,
            bucket=bucket,
        )
        try:
            manifests = render_run(run)
            if apply:
                print(apply_run(manifests, context), end="")
                print(f"kubectl -n {NAMESPACE} logs -f -l app.kubernetes.io/name={run.name}")
            else:
                print(manifests, end="")
        except (LaunchError, RenderError) as error:
            sys.exit(f"error: {error}")

    return launch


def _check_run(arguments: dict[str, Any], chips: int, work: str) -> None:
    """Checks what every pod of a run would fail of.

    Args:
        arguments: Of a stage's command: the flags' dataclasses by name.
        chips: Those of the slice.
        work: Folder of the pods that is kept.

    Raises:
        ValueError: the preset is unknown, a folder is not one of the pods', the mesh has another
            number of chips, or the processes are named.
    """
    run, devices = arguments["run"], arguments.get("devices")
    named_preset(run.preset)
    for flag in ("data", "out", "checkpoints"):
        folder = str(getattr(run, flag))
        if not folder.startswith((f"{work}/", *(REMOTE if flag == "data" else ()))):
            raise ValueError(
                f"{flag}: expected a folder below {work}, where the pods have the bucket, got "
                f"{folder!r}"
            )
    if devices is None:
        return
    if (devices.coordinator, devices.processes, devices.process_id) != (None, None, None):
        raise ValueError(
            "expected no --coordinator, --processes and --process-id: launch sets them in each pod"
        )
    if devices.mesh is not None and math.prod(parse_mesh(devices.mesh).values()) != chips:
        raise ValueError(
            f"mesh: {devices.mesh} takes {math.prod(parse_mesh(devices.mesh).values())} devices, "
            f"expected the {chips} chips of the slice"
        )
