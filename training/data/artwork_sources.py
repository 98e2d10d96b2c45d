"""Upstream artwork of emoji: checkouts of the two projects, and npm packages made from them.

| style | checkout | npm package |
|---|---|---|
| fluent3d | microsoft/fluentui-emoji, `3D/*.png` | `@lobehub/fluent-emoji-3d` |
| fluentflat | microsoft/fluentui-emoji, `Flat/*.svg` | `@iconify-json/fluent-emoji-flat` |
| noto | googlefonts/noto-emoji, `svg/`, else `png/512/` | `@iconify-json/noto` |
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from training.data.sprites import SceneDataError

LICENSES: Mapping[str, str] = MappingProxyType(
    {"fluent3d": "MIT", "fluentflat": "MIT", "noto": "Apache-2.0"}
)
RASTER_PX = 1024  # width of a rasterised SVG: several times the side of a sprite
_PACKAGES = {
    "fluent3d": "@lobehub/fluent-emoji-3d",
    "fluentflat": "@iconify-json/fluent-emoji-flat",
    "noto": "@iconify-json/noto",
}
_CHECKOUTS = {
    "fluent3d": "fluentui-emoji with assets/",
    "fluentflat": "fluentui-emoji with assets/",
    "noto": "noto-emoji with svg/ or png/512/",
}


@dataclass(frozen=True, kw_only=True)
class Artwork:
    """Upstream picture of one emoji.

    Attributes:
        source_path: Project or package with version, and the picture's path there.
        decode: Returns the picture, RGBA.
    """

    source_path: str
    decode: Callable[[], Image.Image]


def emoji_code(code_points: Iterable[str]) -> str:
    """Joins code points in hexadecimal by "-", without variation selectors.

    Args:
        code_points: Such as "2764", "FE0F".
    """
    return "-".join(point.lower() for point in code_points if point.lower() != "fe0f")


def open_artwork(style: str, folder: Path) -> dict[str, Artwork]:
    """Finds the artwork of a style in a checkout or an unpacked npm package.

    Args:
        style: "fluent3d", "fluentflat" or "noto".
        folder: Root of the checkout, or the folder with the package's `package.json`.

    Returns:
        The artwork by `emoji_code`.

    Raises:
        SceneDataError: the style has no known source, or the folder has none of its forms.
    """
    if style not in _PACKAGES:
        raise SceneDataError(f"style {style!r}: expected one of {', '.join(_PACKAGES)}")
    try:
        artwork = _find(style, folder)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise SceneDataError(
            f"the artwork in {folder} is damaged: {type(error).__name__}: {error}"
        ) from error
    if not artwork:
        raise SceneDataError(
            f"style {style!r}: expected a checkout of {_CHECKOUTS[style]} or the npm package "
            f"{_PACKAGES[style]}, got {folder}"
        )
    return artwork


def _find(style: str, folder: Path) -> dict[str, Artwork]:
    manifest = folder / "package.json"
    package = json.loads(manifest.read_text("utf-8")) if manifest.is_file() else {}
    if package.get("name") == _PACKAGES[style]:
        source = f"{package['name']}@{package['version']}"
        read = _webp_package if style == "fluent3d" else _icon_set
        return read(folder, source)
    if style == "noto":
        return _noto_checkout(folder)
    return _fluent_checkout(folder, "3D/*.png" if style == "fluent3d" else "Flat/*.svg")


def _fluent_checkout(checkout: Path, pattern: str) -> dict[str, Artwork]:
    artwork: dict[str, Artwork] = {}
    for metadata in sorted(checkout.glob("assets/*/metadata.json")):
        code = emoji_code(json.loads(metadata.read_text("utf-8"))["unicode"].split())
        # Emoji with skin tones keep the picture without one in Default/.
        for prefix in ("", "Default/"):
            for path in sorted(metadata.parent.glob(prefix + pattern)):
                artwork.setdefault(code, _file(path, checkout, "microsoft/fluentui-emoji"))
    return artwork


def _noto_checkout(checkout: Path) -> dict[str, Artwork]:
    for pattern in ("svg/emoji_u*.svg", "png/512/emoji_u*.png"):
        artwork = {
            emoji_code(path.stem.removeprefix("emoji_u").split("_")): _file(
                path, checkout, "googlefonts/noto-emoji"
            )
            for path in sorted(checkout.glob(pattern))
        }
        if artwork:
            return artwork
    return {}


def _webp_package(folder: Path, source: str) -> dict[str, Artwork]:
    return {
        emoji_code(path.stem.split("-")): _file(path, folder, source)
        for path in sorted(folder.glob("assets/*.webp"))
    }


def _icon_set(folder: Path, source: str) -> dict[str, Artwork]:
    """Reads an icon set of Iconify: `chars.json` names the icon of each code.

    Source: https://iconify.design/docs/types/iconify-json.html
    """
    icon_set = json.loads((folder / "icons.json").read_text("utf-8"))
    names: dict[str, str] = json.loads((folder / "chars.json").read_text("utf-8"))
    artwork = {}
    for code, name in names.items():
        if name in icon_set["icons"]:
            path = f"{source}/icons.json#{name}"
            svg = _icon_svg(icon_set, icon_set["icons"][name])
            artwork[emoji_code(code.split("-"))] = Artwork(
                source_path=path, decode=partial(_rasterize, svg, path)
            )
    return artwork


def _icon_svg(icon_set: dict[str, Any], icon: dict[str, Any]) -> str:
    default = {"left": 0, "top": 0, "width": 16, "height": 16}
    box = (icon.get(key, icon_set.get(key, value)) for key, value in default.items())
    view_box = " ".join(str(number) for number in box)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view_box}">{icon["body"]}</svg>'


def _file(path: Path, root: Path, project: str) -> Artwork:
    source_path = f"{project}/{path.relative_to(root).as_posix()}"
    return Artwork(source_path=source_path, decode=partial(_decode, path))


def _decode(path: Path) -> Image.Image:
    try:
        if path.suffix == ".svg":
            return _rasterize(path.read_text("utf-8"), str(path))
        with Image.open(path) as picture:
            return picture.convert("RGBA")
    except (OSError, UnicodeDecodeError) as error:
        raise SceneDataError(f"{path} cannot be decoded: {error}") from error


def _rasterize(svg: str, path: str) -> Image.Image:
    try:
        from resvg_py import svg_to_bytes
    except ModuleNotFoundError as error:
        raise SceneDataError(
            f"{path} is SVG, which needs {error.name}: pip install -e '.[sprites]'"
        ) from error
    try:
        # Without fonts of the system, every machine draws the same.
        png = svg_to_bytes(svg_string=svg, width=RASTER_PX, skip_system_fonts=True)
    except ValueError as error:
        raise SceneDataError(f"{path} cannot be rasterised: {error}") from error
    return Image.open(io.BytesIO(png)).convert("RGBA")
