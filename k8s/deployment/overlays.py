"""Overlays: those of this repository by name, or any folder with a kustomization.yaml."""

from pathlib import Path

from k8s.checks.rendering import Manifest, parse, render

OVERLAYS = Path(__file__).parents[1] / "overlays"


def names() -> list[str]:
    """Returns the names of this repository's overlays."""
    return sorted(each.parent.name for each in OVERLAYS.glob("*/kustomization.yaml"))


def open_overlay(name: str) -> list[Manifest]:
    """Renders an overlay, one of `names()` or a folder, and returns its objects.

    Raises:
        ValueError: no overlay has the name; the message lists those that there are.
        RenderError: the overlay cannot be rendered, or neither kubectl nor kustomize is installed.
    """
    folder = OVERLAYS / name if name in names() else Path(name)
    if not (folder / "kustomization.yaml").is_file():
        raise ValueError(
            f"overlay: expected one of {', '.join(names())}, or a folder with a "
            f"kustomization.yaml, got {name!r}"
        )
    return parse(render(folder))


def namespace_of(name: str, deployments: list[Manifest]) -> str:
    """Returns the one namespace of an overlay's Deployments.

    Raises:
        ValueError: they have none or several.
    """
    found = {each["metadata"].get("namespace") for each in deployments}
    if len(found) != 1 or None in found:
        raise ValueError(
            f"overlay {name}: expected Deployments in one namespace, got them in "
            f"{sorted(map(str, found)) or 'none'}: set `namespace:` in its kustomization.yaml"
        )
    return str(found.pop())
