"""Tests for making sprites: every form of upstream artwork, cropping, selection, errors."""

import json
import resource
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.data import artwork_sources
from training.data.__main__ import app
from training.data.artwork import write_sprites
from training.data.sprites import SceneDataError, load_sprites

CODES = {"heart": "2764-fe0f", "kite": "1fa81", "black bird": "1f426-200d-2b1b"}
TIERS = {"heart": 1, "kite": 1, "black bird": 2}
STYLES = {"fluent3d": "3D", "fluentflat": "flat", "noto": "cartoon"}
ICON = '<rect x="20" y="30" width="80" height="40" fill="#ff0000"/>'  # of 128 by 128
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128">{ICON}</svg>'


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def _draw(path: Path, side: int = 512) -> None:
    """Draws a red rectangle, twice as wide as high, in a faint margin that is cropped off."""
    image = Image.new("RGBA", (side, side), (0, 255, 0, 7))
    box = (side // 8, side // 4, side // 8 + side // 2 - 1, side // 2 - 1)
    ImageDraw.Draw(image).rectangle(box, fill="red")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, lossless=True, exact=True)


def _fluent_checkout(root: Path) -> Path:
    for name, code in CODES.items():
        folder = root / "assets" / name.title()
        _write(folder / "metadata.json", json.dumps({"unicode": code.replace("-", " ")}))
        default = folder / "Default" if name == "kite" else folder
        _draw(default / "3D" / f"{name}_3d.png")
        _write(default / "Flat" / f"{name}_flat.svg", SVG)
    return root


def _noto_checkout(root: Path) -> Path:
    for code in CODES.values():
        name = code.removesuffix("-fe0f").replace("-", "_")
        _draw(root / "png" / "512" / f"emoji_u{name}.png")
    return root


def _noto_svg_checkout(root: Path) -> Path:
    for code in CODES.values():
        name = code.removesuffix("-fe0f").replace("-", "_")
        _write(root / "svg" / f"emoji_u{name}.svg", SVG)
    return root


def _package(root: Path, name: str) -> Path:
    _write(root / "package.json", json.dumps({"name": name, "version": "1.2.3"}))
    return root


def _webp_package(root: Path) -> Path:
    for code in CODES.values():
        _draw(root / "assets" / f"{code}.webp", side=256)
    return _package(root, "@lobehub/fluent-emoji-3d")


def _icon_set(root: Path, name: str) -> Path:
    icons = {thing.replace(" ", "-"): {"body": ICON} for thing in CODES}
    codes = {code.removesuffix("-fe0f"): thing.replace(" ", "-") for thing, code in CODES.items()}
    _write(root / "icons.json", json.dumps({"icons": icons, "width": 128, "height": 128}))
    _write(root / "chars.json", json.dumps(codes))
    return _package(root, name)


def _flat_icon_set(root: Path) -> Path:
    return _icon_set(root, "@iconify-json/fluent-emoji-flat")


def _noto_icon_set(root: Path) -> Path:
    return _icon_set(root, "@iconify-json/noto")


@pytest.fixture(autouse=True)
def _small_rasters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artwork_sources, "RASTER_PX", 512)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    objects = [
        {
            "name": name,
            "singular": name,
            "plural": f"{name}s",
            "sprites": {style: f"{style}-{code.removesuffix('-fe0f')}" for style in STYLES},
        }
        for name, code in CODES.items()
    ]
    content = {
        "objects": objects,
        "styles": STYLES,
        "backgrounds": {"white": "#ffffff"},
        "counts": [1, 2],
        "tiers": TIERS,
        "groups": dict.fromkeys(CODES, "Things"),
        "measured": {"objects": 3},
    }
    file = tmp_path / "scene_vocabulary.json"
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """An npm package for each style."""
    return {
        "fluent3d": _webp_package(tmp_path / "3d"),
        "fluentflat": _flat_icon_set(tmp_path / "flat"),
        "noto": _noto_icon_set(tmp_path / "noto"),
    }


def _facts(out: Path) -> dict[str, dict[str, Any]]:
    with tarfile.open(out / "scene-sprites.tar") as archive:
        files = {name: archive.extractfile(name) for name in archive.getnames()}
        return {
            name.removesuffix(".json"): json.load(file)
            for name, file in files.items()
            if file and name.endswith(".json")
        }


@pytest.mark.parametrize(
    ("style", "make", "source_path"),
    [
        ("fluent3d", _webp_package, "@lobehub/fluent-emoji-3d@1.2.3/assets/1fa81.webp"),
        (
            "fluent3d",
            _fluent_checkout,
            "microsoft/fluentui-emoji/assets/Kite/Default/3D/kite_3d.png",
        ),
        ("fluentflat", _flat_icon_set, "@iconify-json/fluent-emoji-flat@1.2.3/icons.json#kite"),
        (
            "fluentflat",
            _fluent_checkout,
            "microsoft/fluentui-emoji/assets/Kite/Default/Flat/kite_flat.svg",
        ),
        ("noto", _noto_icon_set, "@iconify-json/noto@1.2.3/icons.json#kite"),
        ("noto", _noto_checkout, "googlefonts/noto-emoji/png/512/emoji_u1fa81.png"),
        ("noto", _noto_svg_checkout, "googlefonts/noto-emoji/svg/emoji_u1fa81.svg"),
    ],
)
def test_each_form_of_artwork_becomes_sprites_that_scenes_can_use(
    vocabulary: Path, tmp_path: Path, style: str, make: Callable[[Path], Path], source_path: str
) -> None:
    out = tmp_path / "out"
    sources = {style: make(tmp_path / "source")}
    assert (
        write_sprites(sources=sources, vocabulary=vocabulary, out=out, styles=[style], side_px=64)
        == 3
    )
    sprites = load_sprites(out)
    assert sprites.vocabulary.styles == {style: STYLES[style]}
    picture = np.asarray(sprites.artwork[f"{style}-1fa81"])
    assert picture.shape == (32, 64, 4)
    # Inside of the rectangle all is red; neither the margin's green nor its alpha remains.
    assert picture[4:-4, 4:-4, 3].min() == 255
    assert (np.abs(picture[2:-2, 2:-2, :3].astype(int) - (255, 0, 0)) < 12).all()
    assert _facts(out)[f"{style}-1fa81"] == {
        "name": "kite",
        "style": style,
        "group": "Things",
        "tier": 1,
        "width": 64,
        "height": 32,
        "license": "Apache-2.0" if style == "noto" else "MIT",
        "source_path": source_path,
    }


def test_svg_of_a_checkout_comes_before_its_png(vocabulary: Path, tmp_path: Path) -> None:
    root = _noto_svg_checkout(_noto_checkout(tmp_path / "noto"))
    out = tmp_path / "out"
    write_sprites(sources={"noto": root}, vocabulary=vocabulary, out=out, styles=["noto"])
    assert all("/svg/" in facts["source_path"] for facts in _facts(out).values())


def test_small_artwork_is_not_scaled_up(
    vocabulary: Path, tmp_path: Path, sources: dict[str, Path]
) -> None:
    write_sprites(sources=sources, vocabulary=vocabulary, out=tmp_path / "out")
    artwork = load_sprites(tmp_path / "out").artwork
    assert artwork["fluent3d-2764"].size == (128, 64)
    assert artwork["noto-2764"].size == (192, 96)


def test_hidden_colours_do_not_bleed_into_edges(vocabulary: Path, tmp_path: Path) -> None:
    image = Image.new("RGBA", (400, 400), (0, 255, 0, 0))
    ImageDraw.Draw(image).ellipse((0, 0, 399, 399), fill="red")
    folder = tmp_path / "noto" / "png" / "512"
    folder.mkdir(parents=True)
    for code in ("2764", "1fa81", "1f426_200d_2b1b"):
        image.save(folder / f"emoji_u{code}.png")
    sources = {"noto": tmp_path / "noto"}
    write_sprites(sources=sources, vocabulary=vocabulary, out=tmp_path / "out", styles=["noto"])
    picture = np.asarray(load_sprites(tmp_path / "out").artwork["noto-2764"])
    edge = picture[(picture[..., 3] > 64) & (picture[..., 3] < 192)]
    assert len(edge) > 100
    assert edge[:, 1].mean() < 16


def test_tiers_and_styles_select_sprites_and_vocabulary(
    vocabulary: Path, tmp_path: Path, sources: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    written = write_sprites(
        sources=sources, vocabulary=vocabulary, out=out, styles=["noto", "fluent3d"], tiers=[1]
    )
    assert written == 4
    sprites = load_sprites(out)
    assert [thing.name for thing in sprites.vocabulary.objects] == ["heart", "kite"]
    assert sprites.vocabulary.tiers == {"heart": 1, "kite": 1}
    content = json.loads((out / "scene_vocabulary.json").read_text())
    assert list(content["styles"]) == ["fluent3d", "noto"]
    assert content["counts"] == [1, 2]
    assert "measured" not in content  # it counts another set


def test_the_command_takes_several_tiers_and_styles(
    vocabulary: Path, tmp_path: Path, sources: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"sprites --vocabulary {vocabulary} --out {tmp_path / 'out'} --side-px 16"
    command += "".join(f" --{style} {folder}" for style, folder in sources.items())
    command += " --styles fluent3d noto --tiers 1 2"
    app(command, result_action="return_value")
    assert capsys.readouterr().out == f"6 sprites: {tmp_path / 'out'}\n"
    assert load_sprites(tmp_path / "out").artwork["noto-2764"].size == (16, 8)


def test_one_run_after_another_writes_the_same_bytes(
    vocabulary: Path, tmp_path: Path, sources: dict[str, Path]
) -> None:
    tars = []
    for out in (tmp_path / "a", tmp_path / "b"):
        write_sprites(sources=sources, vocabulary=vocabulary, out=out, tiers=[2], side_px=32)
        tars.append((out / "scene-sprites.tar").read_bytes())
    assert tars[0] == tars[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"styles": ["oil"]}, "style 'oil': expected fluent3d, fluentflat, noto"),
        ({"tiers": [1, 4]}, "tier 4: expected 1, 2"),
        ({"side_px": 0}, "side_px: expected at least 1, got 0"),
        ({"sources": {}}, "style 'fluent3d': expected its checkout or package, got none"),
    ],
)
def test_what_there_is_nothing_of_cannot_be_selected(
    vocabulary: Path,
    tmp_path: Path,
    sources: dict[str, Path],
    change: dict[str, Any],
    message: str,
) -> None:
    arguments: dict[str, Any] = {"sources": sources, "vocabulary": vocabulary, **change}
    with pytest.raises(SceneDataError, match=message):
        write_sprites(out=tmp_path / "out", **arguments)


def test_tiers_of_a_vocabulary_without_tiers_are_refused(
    vocabulary: Path, tmp_path: Path, sources: dict[str, Path]
) -> None:
    content = json.loads(vocabulary.read_text())
    del content["tiers"]
    vocabulary.write_text(json.dumps(content))
    with pytest.raises(SceneDataError, match="tier 1: expected no tier, the vocabulary names none"):
        write_sprites(sources=sources, vocabulary=vocabulary, out=tmp_path / "out", tiers=[1])


def test_the_vocabulary_is_not_written_over(vocabulary: Path, sources: dict[str, Path]) -> None:
    with pytest.raises(SceneDataError, match="holds the vocabulary to read"):
        write_sprites(sources=sources, vocabulary=vocabulary, out=vocabulary.parent, tiers=[1])


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("fluent3d", r"checkout of fluentui-emoji with assets/ or the npm package @lobehub/"),
        ("fluentflat", r"checkout of fluentui-emoji with assets/ or the npm package @iconify-json"),
        ("noto", r"checkout of noto-emoji with svg/ or png/512/ or the npm package @iconify-json"),
    ],
)
def test_a_folder_of_another_form_is_named(
    vocabulary: Path, tmp_path: Path, sources: dict[str, Path], style: str, message: str
) -> None:
    other = sources["noto" if style == "fluentflat" else "fluentflat"]
    for folder in (tmp_path / "none", other):
        with pytest.raises(SceneDataError, match=message):
            write_sprites(
                sources={style: folder}, vocabulary=vocabulary, out=tmp_path / "o", styles=[style]
            )


def _remove_picture(sources: dict[str, Path]) -> None:
    (sources["fluent3d"] / "assets" / "1fa81.webp").unlink()


def _break_picture(sources: dict[str, Path]) -> None:
    (sources["fluent3d"] / "assets" / "1fa81.webp").write_bytes(b"RIFF")


def _clear_picture(sources: dict[str, Path]) -> None:
    Image.new("RGBA", (9, 9)).save(sources["fluent3d"] / "assets" / "1fa81.webp")


def _break_svg(sources: dict[str, Path]) -> None:
    content = {"icons": {"kite": {"body": "<path"}, "heart": {"body": ICON}}}
    (sources["noto"] / "icons.json").write_text(json.dumps(content))


def _break_icons(sources: dict[str, Path]) -> None:
    (sources["noto"] / "icons.json").write_text('{"icons": ')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove_picture, r"3d has no artwork of 'kite' \(1fa81\)"),
        (_break_picture, r"1fa81\.webp cannot be decoded"),
        (_clear_picture, r"1fa81\.webp is wholly transparent"),
        (_break_svg, r"icons\.json#kite cannot be rasterised"),
        (_break_icons, r"the artwork in .*noto is damaged: JSONDecodeError"),
    ],
)
def test_damaged_artwork_is_named_and_leaves_nothing_half_written(
    vocabulary: Path,
    tmp_path: Path,
    sources: dict[str, Path],
    damage: Callable[[dict[str, Path]], None],
    message: str,
) -> None:
    damage(sources)
    out = tmp_path / "out"
    with pytest.raises(SceneDataError, match=message):
        write_sprites(sources=sources, vocabulary=vocabulary, out=out, tiers=[1], side_px=16)
    assert not out.exists() or not list(out.iterdir())


def test_svg_without_its_rasteriser_says_what_to_install(
    vocabulary: Path, tmp_path: Path, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(SceneDataError, match=r"needs resvg_py: pip install -e '\.\[sprites\]'"):
        write_sprites(sources=sources, vocabulary=vocabulary, out=tmp_path / "out", styles=["noto"])


def test_a_full_disk_leaves_the_older_sprites(
    vocabulary: Path, tmp_path: Path, sources: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    write_sprites(sources=sources, vocabulary=vocabulary, out=out, tiers=[1], side_px=16)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SceneDataError, match=r"scene-sprites\.tar cannot be written: File too"):
            write_sprites(sources=sources, vocabulary=vocabulary, out=out, tiers=[2], side_px=16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_place_that_cannot_be_written_is_named(
    vocabulary: Path, tmp_path: Path, sources: dict[str, Path]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SceneDataError, match="cannot be written: Not a directory"):
        write_sprites(sources=sources, vocabulary=vocabulary, out=tmp_path / "file" / "out")
