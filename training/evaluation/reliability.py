"""How far the detector can be trusted: what it reads in composed scenes, sound and damaged."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.table import Table

from services.pictures.low_resolution import low_resolution_view
from training.data.scenes import Scene, draw_scene, render
from training.evaluation.damage import DAMAGES, damaged
from training.evaluation.detector import Detection
from training.evaluation.scenes import score
from training.evaluation.shares import Share, share_of
from training.evaluation.testbed import Testbed

NOISE_DB = 27.0  # peak signal to noise ratio of the noisy scenes
JPEG_QUALITY = 20


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """What came of measuring the detector.

    Attributes:
        worst_distance: Past which it calls a region unrecognised.
        all_right: Share of sound pictures that it reads right in everything, by their kind:
            "composed", with "noise", and after "JPEG".
        accepted: Share of damaged objects in whose place it recognises an object, by damage.
    """

    worst_distance: float
    all_right: Mapping[str, Share]
    accepted: Mapping[str, Share]

    def as_json(self) -> dict[str, object]:
        """Returns it as plain numbers."""
        return {
            "worst_distance": self.worst_distance,
            "all_right": {name: share.as_json() for name, share in self.all_right.items()},
            "accepted": {name: share.as_json() for name, share in self.accepted.items()},
        }

    def table(self) -> Table:
        """Returns it as a table to print."""
        table = Table(
            "detector on", "pictures", "all right", "damaged object recognised",
            title=f"The detector itself, worst distance {self.worst_distance:g}",
        )  # fmt: skip
        for name, share in self.all_right.items():
            table.add_row(f"scenes, {name}", str(share.total), str(share), "")
        for name, share in self.accepted.items():
            table.add_row(f"an object {name}", str(share.total), "", str(share))
        return table


def measure_detector(
    testbed: Testbed,
    pictures: int,
    *,
    seed: int,
    side_px: int | None = None,
    worst_distance: float | None = None,
) -> Reliability:
    """Has the detector read composed scenes, sound and with one object damaged.

    Args:
        testbed: What scenes are drawn from, and the detector.
        pictures: Of every kind and of every damage; at least 1.
        seed: Of the scenes.
        side_px: Of the pictures, to which those of the testbed's size are reduced as for the base;
            not at all if None.
        worst_distance: Of the detector, in place of its own if not None.
    """
    if pictures < 1:
        raise ValueError(f"expected at least 1 picture, got {pictures}")
    side_px = side_px or testbed.side_px
    limit = testbed.worst_distance if worst_distance is None else worst_distance
    right: dict[str, list[bool]] = {}
    accepted: dict[str, list[bool]] = {damage: [] for damage in DAMAGES}
    for index in range(pictures):
        random = np.random.default_rng([seed, index])
        scene = draw_scene(testbed.vocabulary, testbed.board, random)
        drawn = low_resolution_view(render(scene, testbed.sprites, testbed.side_px), side_px)
        for name, picture in _sound(drawn, random).items():
            reading = testbed.detector.read(picture, worst_distance=limit)
            right.setdefault(name, []).append(score(scene, reading).all)
        victim = int(random.integers(len(scene.placed)))
        for damage, answers in accepted.items():
            picture = damaged(scene, testbed.sprites, testbed.side_px, damage, victim, random)
            picture = low_resolution_view(picture, side_px)
            reading = testbed.detector.read(picture, worst_distance=limit)
            answers.append(_recognised_at(scene, victim, reading.objects))
    return Reliability(
        worst_distance=limit,
        all_right={name: share_of(answers) for name, answers in right.items()},
        accepted={name: share_of(answers) for name, answers in accepted.items()},
    )


def _sound(
    picture: UInt8[np.ndarray, "h w 3"], random: np.random.Generator
) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """Returns a picture as it is, with noise, and as a JPEG of low quality."""
    noise = random.normal(0, 255 * 10 ** (-NOISE_DB / 20), picture.shape)
    noisy = np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY)
    return {
        "composed": picture,
        f"noise of {NOISE_DB:g} dB": noisy,
        f"JPEG of quality {JPEG_QUALITY}": np.asarray(Image.open(file)),
    }


def _recognised_at(scene: Scene, victim: int, objects: tuple[Detection, ...]) -> bool:
    """Says whether an object is recognised where the victim stands."""
    placed = scene.placed[victim]
    place = Detection(
        index=placed.index, style=scene.style, row=placed.row, column=placed.column,
        cells=placed.cells, distance=0.0, explained=0.0,
    )  # fmt: skip
    return any(detection.overlap(place) > 0.5 for detection in objects)
