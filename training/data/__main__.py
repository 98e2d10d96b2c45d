"""`python -m training.data sprites`: makes the sprites of scenes from upstream artwork of emoji."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from services.runtime.version import package_version
from training.data.artwork import SIDE_PX, write_sprites
from training.data.sprites import SceneDataError

app = App(
    name="python -m training.data", help="Prepares data to train on.", version=package_version
)


@app.command
def sprites(
    *,
    vocabulary: Path,
    out: Path,
    fluent3d: Path | None = None,
    fluentflat: Path | None = None,
    noto: Path | None = None,
    styles: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative_iterable=())] = (),
    tiers: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative_iterable=())] = (),
    side_px: int = SIDE_PX,
) -> None:
    """Makes a folder of sprites from checkouts or unpacked npm packages.

    Args:
        vocabulary: The scene_vocabulary.json that names the objects.
        out: Folder to write.
        fluent3d: microsoft/fluentui-emoji or @lobehub/fluent-emoji-3d.
        fluentflat: microsoft/fluentui-emoji or @iconify-json/fluent-emoji-flat.
        noto: googlefonts/noto-emoji or @iconify-json/noto.
        styles: Styles to make; all of the vocabulary by default.
        tiers: Tiers of objects to make; all objects by default.
        side_px: Longer side of a sprite in pixels, at most.
    """
    given = {"fluent3d": fluent3d, "fluentflat": fluentflat, "noto": noto}
    count = write_sprites(
        sources={style: folder for style, folder in given.items() if folder is not None},
        vocabulary=vocabulary,
        out=out,
        styles=styles,
        tiers=tiers,
        side_px=side_px,
    )
    print(f"{count} sprites: {out}")


if __name__ == "__main__":
    try:
        app()
    except (SceneDataError, OSError) as error:
        sys.exit(f"error: {error}")
