"""Turns checkouts of emoji artwork into the tar of sprites that scenes are composed from.

fluent3d comes from microsoft/fluentui-emoji (`assets/*/metadata.json` names the code point, the 3D
picture lies in `3D/` or `Default/3D/`), noto from googlefonts/noto-emoji (`png/512/emoji_u*.png`).
"""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from training.data.sprites import SceneDataError

SIDE_PX = 112  # of the longer side of a sprite, at most
_LICENSES = {"fluent3d": "MIT", "noto": "Apache-2.0"}


def write_sprites(*, fluent: Path, noto: Path, vocabulary: Path, out: Path) -> int:
    """Writes the sprites that a vocabulary names, as WebP with a JSON beside each.

    Args:
        fluent: Checkout of fluentui-emoji.
        noto: Checkout of noto-emoji.
        vocabulary: The `scene_vocabulary.json`.
        out: The tar to write.

    Returns:
        How many sprites were written.

    Raises:
        SceneDataError: a checkout is not one, or lacks a sprite that the vocabulary names.
    """
    places = {"fluent3d": _fluent_pictures(fluent), "noto": _noto_pictures(noto)}
    roots = {"fluent3d": fluent, "noto": noto}
    named = {}
    for thing in json.loads(vocabulary.read_text())["objects"]:
        for style, sprite in thing["sprites"].items():
            if style not in places:
                raise SceneDataError(f"style {style!r}: expected one of {', '.join(places)}")
            code = _code(sprite.removeprefix(f"{style}-").split("-"))
            if code not in places[style]:
                raise SceneDataError(f"{roots[style]} has no artwork of {thing['name']!r} ({code})")
            named[sprite] = (thing["name"], style, places[style][code])
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
        for sprite, (name, style, path) in sorted(named.items()):
            picture = _cropped(path)
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", quality=90)
            facts = {
                "name": name,
                "style": style,
                "width": picture.width,
                "height": picture.height,
                "license": _LICENSES[style],
                "source_path": path.relative_to(roots[style]).as_posix(),
            }
            for suffix, content in (
                ("webp", buffer.getvalue()),
                ("json", json.dumps(facts).encode()),
            ):
                member = tarfile.TarInfo(f"{sprite}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return len(named)


def _code(points: Iterable[str]) -> str:
    """Joins code points; the variation selector says nothing about the artwork."""
    return "-".join(point.lower() for point in points if point.lower() != "fe0f")


def _fluent_pictures(checkout: Path) -> dict[str, Path]:
    pictures: dict[str, Path] = {}
    for metadata in sorted(checkout.glob("assets/*/metadata.json")):
        code = _code(json.loads(metadata.read_text())["unicode"].split())
        for folder in ("3D", "Default/3D"):
            for path in sorted((metadata.parent / folder).glob("*.png")):
                pictures.setdefault(code, path)
    if not pictures:
        raise SceneDataError(f"expected a checkout of fluentui-emoji with assets/, got {checkout}")
    return pictures


def _noto_pictures(checkout: Path) -> dict[str, Path]:
    pictures = {
        _code(path.stem.removeprefix("emoji_u").split("_")): path
        for path in sorted(checkout.glob("png/512/emoji_u*.png"))
    }
    if not pictures:
        raise SceneDataError(f"expected a checkout of noto-emoji with png/512/, got {checkout}")
    return pictures


def _cropped(path: Path) -> Image.Image:
    """Crops a picture to what is not transparent and scales it to at most SIDE_PX."""
    picture = Image.open(path).convert("RGBA")
    box = picture.getchannel("A").getbbox()
    if box is None:
        raise SceneDataError(f"{path} is wholly transparent")
    picture = picture.crop(box)
    scale = min(1.0, SIDE_PX / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
