"""Overlays: by name those of this repository, or any folder with a kustomization.yaml."""

from dataclasses import dataclass
from pathlib import Path

from k8s.checks import chips
from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest, parse, render

OVERLAYS = Path(__file__).parents[1] / "overlays"
SHAPES = (
    chips.chips_come_with_their_shape,
    chips.machines_have_the_chips,
    chips.pods_fit_their_node,
)


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """A rendered overlay.

    Attributes:
        name: As it was asked for.
        text: What was rendered, as YAML.
        manifests: The objects in it.
    """

    name: str
    text: str
    manifests: list[Manifest]

    @property
    def namespace(self) -> str:
        """Of its objects.

        Raises:
            ValueError: it has none or several.
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

    def check_chips(self) -> None:
        """Checks that every pod asks for what one node of its pool has.

        Raises:
            ValueError: one asks for more, and would stay Pending; names it. Or it is no pod at all.
        """
        objects = Objects(self.manifests)
        try:
            found = [message for check in SHAPES for message in check(objects)]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"overlay {self.name}: some object lacks what every pod has, or has it elsewhere: "
                f"{error!r}; `python -m k8s.checks FOLDER` says more"
            ) from error
        if found:
            raise ValueError(f"overlay {self.name} could not be scheduled: {'; '.join(found)}")


def names() -> list[str]:
    """Returns the names of this repository's overlays."""
    return sorted(each.parent.name for each in OVERLAYS.glob("*/kustomization.yaml"))


def open_overlay(name: str) -> Overlay:
    """Renders an overlay.

    Args:
        name: One of `names()`, or a folder.

    Raises:
        ValueError: there is none of that name; names those there are.
        RenderError: it is wrong, or nothing here renders.
    """
    folder = OVERLAYS / name if name in names() else Path(name)
    if not (folder / "kustomization.yaml").is_file():
        raise ValueError(
            f"overlay: expected one of {', '.join(names())}, or a folder with a "
            f"kustomization.yaml, got {name!r}"
        )
    text = render(folder)
    return Overlay(name=name, text=text, manifests=parse(text))
