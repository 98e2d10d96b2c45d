"""Renders an overlay, with kubectl or kustomize, whichever is there."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
# Fetched by scripts/fetch_kubectl.sh, for machines that have no kubectl of their own.
PINNED = Path(__file__).parents[2] / "requirements/kubectl/bin/kubectl"


class RenderError(RuntimeError):
    """An overlay that cannot be rendered; the message says why."""


def renderer() -> list[str] | None:
    """Returns the command that renders a folder, or None if this machine has none."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"], [str(PINNED), "kustomize"]):
        if shutil.which(command[0]):
            return command
    return None


def render(folder: Path) -> str:
    """Returns the YAML of an overlay, a folder with a kustomization.yaml.

    Raises:
        RenderError: nothing here renders, or the folder is wrong.
    """
    command = renderer()
    if command is None:
        raise RenderError(
            "no kubectl and no kustomize on the PATH: install one "
            "(https://kubernetes.io/docs/tasks/tools), or run make kubectl"
        )
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RenderError(f"{folder}: {done.stderr.strip()}")
    return done.stdout


def parse(text: str) -> list[Manifest]:
    """Returns the objects of a stream of YAML documents."""
    return [document for document in yaml.safe_load_all(text) if document]
