"""Overlays: those of this repository by name, or any folder with a kustomization.yaml."""

from dataclasses import dataclass
from pathlib import Path

from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest, parse, render

OVERLAYS = Path(__file__).parents[1] / "overlays"


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """A rendered overlay.

    Attributes:
        name: The name or the folder that it was opened by.
        manifests: Its objects.
    """

    name: str
    manifests: list[Manifest]

    @property
    def namespace(self) -> str:
        """The one namespace of its Deployments.

        Raises:
            ValueError: they have none or several.
        """
        found = {each["metadata"].get("namespace") for each in self.deployments}
        if len(found) != 1 or None in found:
            raise ValueError(
                f"overlay {self.name}: expected Deployments in one namespace, got them in "
                f"{sorted(map(str, found)) or 'none'}: set `namespace:` in its kustomization.yaml"
            )
        return str(found.pop())

    @property
    def deployments(self) -> list[Manifest]:
        """Its Deployments."""
        return Objects(self.manifests).of("Deployment")


def names() -> list[str]:
    """Returns the names of this repository's overlays."""
    return sorted(each.parent.name for each in OVERLAYS.glob("*/kustomization.yaml"))


def open_overlay(name: str) -> Overlay:
    """Renders an overlay.

    Args:
        name: One of `names()`, or a folder.

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
    return Overlay(name=name, manifests=parse(render(folder)))
