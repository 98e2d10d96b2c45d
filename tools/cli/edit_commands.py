"""`muse inpaint`, `outpaint`, `mask-free-edit` and `vary`: edits of image files."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tools.cli.options import DEFAULTS, CommandOptions, Prompt

Picture = Annotated[Path, Parameter(help="Source picture: PNG, JPEG or WebP of any size.")]
Options = Annotated[CommandOptions, Parameter(name="*")]


def inpaint(
    image: Picture,
    mask: Path,
    prompt: Prompt,
    *,
    feather: int | None = None,
    composite: bool = True,
    options: Options = DEFAULTS,
) -> None:
    """Repaints the masked part of a picture; every other pixel stays unchanged.

    Parameters
    ----------
    mask
        Mask of the picture's size: white is repainted, black kept. The picture's own file as mask
        stands for its transparent pixels.
    prompt
        Description of the whole picture.
    feather
        Pixels inside the mask over which new pixels fade in, 0 to 1024.
    composite
        Whether pixels outside the mask stay unchanged; otherwise the decoded picture is written.
    """
    from muse_client.edits import inpainting

    from tools.cli.generation import run_request

    mask_file = mask if mask != image else None
    message = inpainting(image, mask_file, feather_px=feather, composite=composite)
    run_request(prompt, options, inpaint=message)


def outpaint(
    image: Picture,
    prompt: Prompt,
    *,
    left: int = 0,
    top: int = 0,
    right: int = 0,
    bottom: int = 0,
    options: Options = DEFAULTS,
) -> None:
    """Extends a picture beyond its borders; the picture itself stays unchanged.

    Parameters
    ----------
    prompt
        Description of the whole picture.
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

    from tools.cli.generation import run_request

    message = outpainting(image, left_px=left, top_px=top, right_px=right, bottom_px=bottom)
    run_request(prompt, options, outpaint=message)


def mask_free_edit(
    image: Picture,
    prompt: Prompt,
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
    prompt
        Description of the changed picture.
    iterations
        1 to 256; 100 by default.
    fraction
        Share of the tokens that each iteration resamples; 0.08 by default.
    return_iterations
        Iterations after which the picture is written besides the last, such as 25,50,75.
    strength
        Strength of the edit, more than 0 to 1: 200 times that many iterations.
    """
    from muse_client.edits import mask_free_editing

    from tools.cli.generation import run_request

    message = mask_free_editing(
        image,
        iterations=iterations,
        fraction=fraction,
        return_iterations=_numbers("return_iterations", return_iterations),
        strength=strength,
    )
    run_request(prompt, options, mask_free_edit=message)


def vary(
    image: Picture,
    prompt: Prompt = "",
    *,
    strength: float | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Paints a random share of a picture anew.

    Parameters
    ----------
    prompt
        Description of the variation; empty for none.
    strength
        Share of the tokens to decode anew, more than 0 to 1; 0.5 by default.
    """
    from muse_client.edits import variation

    from tools.cli.generation import run_request

    message = variation(image, strength=strength)
    run_request(prompt, options, vary=message)


def _numbers(name: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError as error:
        raise ValueError(f"{name}: expected numbers such as 25,50,75, got {text!r}") from error


COMMANDS = (inpaint, outpaint, mask_free_edit, vary)
