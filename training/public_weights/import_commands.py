"""`muse import`, also `python -m training import`: published weights as our checkpoints."""

from pathlib import Path, PurePosixPath

from cyclopts import App
from rich.console import Console

from training.public_weights.amused import import_amused
from training.public_weights.layouts import LayoutName, Pixels, located
from training.public_weights.vqgan import import_vqgan

app = App(name="import", help="Writes checkpoints of weights that others have published.")
console = Console()


@app.command
def vqgan(
    source: str,
    *,
    layout: LayoutName,
    out: Path,
    image_size: int = 256,
    pixels: Pixels | None = None,
) -> None:
    """Writes a published VQGAN as a checkpoint of a tokenizer.

    Parameters
    ----------
    source
        File of the weights, the folder that it lies in, or a hub id, also with a folder in it and a
        revision: amused/amused-512/vqvae@main.
    layout
        Library that wrote it. Those of taming, ldm and llamagen are files of PyTorch, which is
        needed to read them; those of maskgit are not.
    out
        Folder of the new checkpoint, such as checkpoints/x/tokenizer/low.
    image_size
        Side in pixels of the pictures to serve, a multiple of the downsampling factor.
    pixels
        Range of the network's pixels: signed is [-1, 1], unsigned is [0, 1]. By default that of the
        layout; diffusers has both, so there it must be given: unsigned for aMUSEd and Meissonic.
    """
    place = located(source, layout)
    config = import_vqgan(place, layout, out, image_size=image_size, pixels=pixels)
    console.print(
        f"{out} is {source} as a tokenizer: {config.codebook_size} codes of {config.code_dim}, "
        f"downsampling factor {config.factor}, {image_size} px as {config.grid} x {config.grid} "
        "tokens",
        soft_wrap=True,
        highlight=False,
    )


@app.command
def amused(source: str, *, out: Path | None = None) -> None:
    """Writes aMUSEd as the checkpoints of a system: text encoder, base and tokenizer.

    Parameters
    ----------
    source
        Folder of the pipeline as diffusers writes it, or a hub id, also with a revision:
        amused/amused-512@main.
    out
        Folder of the new checkpoints, by default checkpoints/NAME with the last name of the source.
    """
    if out is None:
        out = Path("checkpoints") / PurePosixPath(source).name.partition("@")[0]
    imported = import_amused(source, out)
    config = imported.config
    console.print(
        f"{out} is {source}: {config.image_size} px as {config.grid} x {config.grid} tokens of "
        f"{config.vocabulary} codes. The licence of its weights is {imported.licence}, which binds "
        "who serves them.",
        soft_wrap=True,
        highlight=False,
    )
