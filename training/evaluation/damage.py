"""Pictures of scenes with one object damaged, which a detector must not recognise.

Sizes are in cells of the scene's board, so that damage is as strong at every size of a picture.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter

from training.data.scenes import Placed, Scene, render
from training.data.sprites import SpriteSet

BLUR_CELLS = 0.375  # standard deviation of the blur
SHIFT_CELLS = 0.5  # that either half is moved, in opposite directions
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. ITU-R BT.601

Layer = Float[np.ndarray, "h w 4"]  # premultiplied RGBA in [0, 1], of a whole picture


def damaged(
    scene: Scene,
    sprites: SpriteSet,
    side_px: int,
    damage: str,
    victim: int,
    random: np.random.Generator,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws a scene with one object damaged.

    Args:
        scene: What to show.
        sprites: The artwork.
        side_px: Side of the picture.
        damage: One of DAMAGES.
        victim: Which of the scene's objects.
        random: Chooses what is mixed in.
    """
    others = tuple(placed for at, placed in enumerate(scene.placed) if at != victim)
    canvas = render(replace(scene, placed=others), sprites, side_px).astype(np.float32)
    layer = DAMAGES[damage](scene, sprites, side_px, scene.placed[victim], random)
    canvas = canvas * (1 - layer[..., 3:]) + 255 * layer[..., :3]
    return np.clip(np.round(canvas), 0, 255).astype(np.uint8)


def _layer(scene: Scene, sprites: SpriteSet, side_px: int, placed: Placed) -> Layer:
    """Draws one object of a scene alone, on nothing."""
    cell = side_px // scene.board.cells
    size, top, left = placed.cells * cell, placed.row * cell, placed.column * cell
    layer = np.zeros((side_px, side_px, 4), np.float32)
    name = sprites.vocabulary.objects[placed.index].sprites[scene.style]
    layer[top : top + size, left : left + size] = sprites.scaled(name, size)
    return layer


def _blurred(
    scene: Scene, sprites: SpriteSet, side_px: int, placed: Placed, _: np.random.Generator
) -> Layer:
    """Blurs the object."""
    image = Image.fromarray(
        np.round(255 * _layer(scene, sprites, side_px, placed)).astype(np.uint8), "RGBA"
    )  # its colours stay premultiplied: each channel is blurred by itself
    radius = BLUR_CELLS * side_px / scene.board.cells
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius))).astype(np.float32) / 255


def _mixed(
    scene: Scene, sprites: SpriteSet, side_px: int, placed: Placed, random: np.random.Generator
) -> Layer:
    """Replaces the right or the lower half of the object by that of another."""
    others = [at for at in range(len(sprites.vocabulary.objects)) if at != placed.index]
    other = replace(placed, index=int(random.choice(others)))
    layer, its = (_layer(scene, sprites, side_px, each) for each in (placed, other))
    middle = _middle(scene, side_px, placed)
    if random.random() < 0.5:
        layer[middle[0] :] = its[middle[0] :]
    else:
        layer[:, middle[1] :] = its[:, middle[1] :]
    return layer


def _shifted(
    scene: Scene, sprites: SpriteSet, side_px: int, placed: Placed, _: np.random.Generator
) -> Layer:
    """Moves the left half of the object up and the right half down."""
    layer = _layer(scene, sprites, side_px, placed)
    middle = _middle(scene, side_px, placed)[1]
    shift = round(SHIFT_CELLS * side_px / scene.board.cells)
    moved = np.zeros_like(layer)
    moved[:-shift, :middle] = layer[shift:, :middle]
    moved[shift:, middle:] = layer[:-shift, middle:]
    return moved


def _recoloured(
    scene: Scene, sprites: SpriteSet, side_px: int, placed: Placed, _: np.random.Generator
) -> Layer:
    """Paints the object in shades of the pure hue that is farthest from its own colours."""
    layer = _layer(scene, sprites, side_px, placed)
    colour, alpha = layer[..., :3], layer[..., 3:]
    hues = np.array([[r, g, b] for r in (0.2, 1) for g in (0.2, 1) for b in (0.2, 1)], np.float32)
    hues = hues[1:-1] / (hues[1:-1] @ _LUMINANCE)[:, None]
    shades = (colour @ _LUMINANCE)[..., None]
    painted = np.minimum(shades[None] * hues[:, None, None], alpha)
    farthest = int(np.square(painted - colour).sum(axis=(1, 2, 3)).argmax())
    return np.concatenate([painted[farthest], alpha], axis=-1)


def _middle(scene: Scene, side_px: int, placed: Placed) -> tuple[int, int]:
    """Returns the pixel row and column in the middle of an object."""
    half_cell = side_px // scene.board.cells / 2
    row, column = ((2 * at + placed.cells) * half_cell for at in (placed.row, placed.column))
    return round(row), round(column)


DAMAGES: Mapping[str, Callable[[Scene, SpriteSet, int, Placed, np.random.Generator], Layer]] = {
    "blurred": _blurred,
    "mixed": _mixed,
    "shifted": _shifted,
    "recoloured": _recoloured,
}
