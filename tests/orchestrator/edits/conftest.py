"""An orchestrator that edits, over the small stages."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image


@dataclass
class Studio:
    """What tests of edits do with an orchestrator.

    Attributes:
        house: It and its stages.
        seed: What the small stages paint: every unknown token has this shade.
    """

    house: Any
    seed: int = 200

    async def images(self, **changes: Any) -> list[Any]:
        """The pictures of a request, by index and iteration."""
        events = await self.house.events(**{"seed": self.seed, **changes})
        assert events[-1].WhichOneof("event") == "done"
        images = [event.image for event in events if event.WhichOneof("event") == "image"]
        return sorted(images, key=lambda image: (image.index, image.iteration))

    async def pixels(self, **changes: Any) -> np.ndarray:
        """The pixels of the only picture of a request."""
        (image,) = await self.images(**changes)
        return pixels_of(image.png)


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.fixture
def studio(house: Any) -> Studio:
    """Asks for edits."""
    return Studio(house)


@pytest.fixture(scope="session")
def file_of() -> Callable[..., bytes]:
    """Makes files of pixels: grey, RGB or RGBA."""

    def made(pixels: np.ndarray, kind: str = "PNG", **extra: Any) -> bytes:
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, kind, **extra)
        return content.getvalue()

    return made


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """Makes pictures of noise, darker than what is painted."""

    def made(height: int = 32, width: int = 32) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 150, (height, width, 3)).astype(np.uint8)

    return made
