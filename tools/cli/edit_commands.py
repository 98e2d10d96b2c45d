"""`muse inpaint`, `outpaint`, `edit` and `vary`: pictures from files, changed, into files."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tools.cli.options import DEFAULTS, CommandOptions

Options = Annotated[CommandOptions, Parameter(name="*")]


def inpaint(
    image: Path,
    mask: Path,
    prompt: str,
    *,
    feather: int | None = None,
    composite: bool = True,
    options: Options = DEFAULTS,
) -> None:
    """Repaints what a mask covers; every other pixel stays as it is.

    Parameters
    ----------
    image
        The picture: PNG, JPEG or WebP of any size.
    mask
        A picture of that size, white where new, black where kept. The image itself again: where
        it is transparent.
    prompt
        What the whole picture shows.
    feather
        Pixels inside the mask over which the new fades in, 0 to 1024.
    composite
        Whether pixels outside the mask stay as they are; if not, the decoded picture is written.
    """
    from muse_client.edits import inpainting

    from tools.cli.generation import paint_files

    of_its_own = mask if mask != image else None
    message = inpainting(image, of_its_own, feather_px=feather, composite=composite)
    paint_files(prompt, {**options.generate_options(), "inpaint": message}, options)


def outpaint(
    image: Path,
    prompt: str,
    *,
    left: int = 0,
    top: int = 0,
    right: int = 0,
    bottom: int = 0,
    options: Options = DEFAULTS,
) -> None:
    """Paints beyond the borders, window by window; the picture itself stays as it is.

    Parameters
    ----------
    image
        The picture: PNG, JPEG or WebP of any size.
    prompt
        What the whole picture shows.
    left
        Pixels to add on the left.
    top
        Pixels to add on top.
    right
        Pixels to add on the right.
    bottom
        Pixels to add at the bottom.
    """
    from muse_client.edits import outpainting

    from tools.cli.generation import paint_files

    message = outpainting(image, left_px=left, top_px=top, right_px=right, bottom_px=bottom)
    paint_files(prompt, {**options.generate_options(), "outpaint": message}, options)


def edit(
    image: Path,
    prompt: str,
    *,
    iterations: int | None = None,
    fraction: float | None = None,
    return_iterations: str = "",
    strength: float | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Changes a picture towards a prompt without a mask.

    Parameters
    ----------
    image
        The picture: PNG, JPEG or WebP of any size.
    prompt
        What the changed picture shows.
    iterations
        1 to 256; 100 by default.
    fraction
        Share of the tokens that each of them draws anew; 0.08 by default.
    return_iterations
        Iterations after which the picture is written besides the last, such as 25,50,75.
    strength
        More than 0 to 1, instead of iterations: 200 times that.
    """
    from muse_client.edits import mask_free_editing

    from tools.cli.generation import paint_files

    message = mask_free_editing(
        image,
        iterations=iterations,
        fraction=fraction,
        return_iterations=_numbers("return_iterations", return_iterations),
        strength=strength,
    )
    paint_files(prompt, {**options.generate_options(), "mask_free_edit": message}, options)


def vary(
    image: Path,
    prompt: str = "",
    *,
    strength: float | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Paints a share of a picture anew.

    Parameters
    ----------
    image
        The picture: PNG, JPEG or WebP of any size.
    prompt
        What the variation shows; nothing but the picture says so by default.
    strength
        The share, more than 0 to 1; 0.5 by default.
    """
    from muse_client.edits import variation

    from tools.cli.generation import paint_files

    message = variation(image, strength=strength)
    paint_files(prompt, {**options.generate_options(), "vary": message}, options)


def _numbers(name: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError as error:
        raise ValueError(f"{name}: expected numbers such as 25,50,75, got {text!r}") from error
