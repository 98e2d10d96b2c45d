"""What an evaluation of one preset draws its scenes from, and reads pictures with."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from services.presets import preset as named_preset
from training.data.scenes import Board
from training.data.sprites import SceneDataError, SpriteSet, Vocabulary, load_sprites
from training.evaluation.detector import WORST_DISTANCE, Detector
from training.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class Testbed:
    """The artwork of an evaluation, and the detector for it.

    Attributes:
        sprites: All artwork, also of objects that the preset was not trained on.
        vocabulary: What scenes are drawn from: the objects that the preset is trained on.
        board: Grid that scenes are laid out on.
        side_px: Side of the pictures.
        low_side_px: Side of the low-resolution pictures.
        worst_distance: Of the detector: from a template, past which a region is not recognised.
    """

    __test__ = False  # not a test of pytest's

    sprites: SpriteSet
    vocabulary: Vocabulary
    board: Board
    side_px: int
    low_side_px: int
    worst_distance: float = WORST_DISTANCE

    @cached_property
    def detector(self) -> Detector:
        """Reads pictures; it knows every sprite, and is prepared when it is first needed."""
        return Detector(self.sprites, self.board, worst_distance=self.worst_distance)


def open_testbed(
    preset: str,
    data: Path,
    *,
    objects: int | None = None,
    worst_distance: float = WORST_DISTANCE,
) -> Testbed:
    """Reads the artwork that a preset is evaluated with.

    Args:
        preset: Name of the system under evaluation.
        data: Folder of sprites.
        objects: How many objects of the vocabulary scenes show, from its first; the preset's number
            if None.
        worst_distance: Of the detector: from a template, past which a region is not recognised.

    Raises:
        ValueError: no preset has that name.
        SceneDataError: the folder is incomplete, or has fewer objects.
    """
    system, recipes = named_preset(preset), RECIPES[preset]
    sprites = load_sprites(data)
    shown = recipes.objects if objects is None else objects
    known = sprites.vocabulary.objects[:shown]
    if shown is not None and len(known) != max(1, shown):
        raise SceneDataError(
            f"expected 1 to {len(sprites.vocabulary.objects)} objects, as {data} has, got {shown}"
        )
    return Testbed(
        sprites=sprites,
        vocabulary=replace(sprites.vocabulary, objects=known),
        board=recipes.board,
        side_px=system.side_px,
        low_side_px=system.low_tokenizer.image_size,
        worst_distance=worst_distance,
    )
