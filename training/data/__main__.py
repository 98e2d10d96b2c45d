"""`python -m training.data sprites`: makes the tar of sprites from checkouts of the artwork."""

import sys
from pathlib import Path

from cyclopts import App

from training.data.artwork import write_sprites
from training.data.sprites import SceneDataError

app = App(name="python -m training.data", help="Prepares data to train on.")


@app.command
def sprites(*, fluent: Path, noto: Path, vocabulary: Path, out: Path) -> None:
    """Cuts the objects of a vocabulary out of fluentui-emoji and noto-emoji."""
    print(
        f"{write_sprites(fluent=fluent, noto=noto, vocabulary=vocabulary, out=out)} sprites: {out}"
    )


if __name__ == "__main__":
    try:
        app()
    except (SceneDataError, OSError) as error:
        sys.exit(f"error: {error}")
