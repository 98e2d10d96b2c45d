"""An orchestrator that edits, over the small stages."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.picture_files import pixels_of
from tests.small_stages import House


@dataclass
class Studio:
    """What tests of edits do with an orchestrator.

    Attributes:
        house: It and its stages.
        seed: What the small stages paint: every unknown token has this shade.
    """

    house: House
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


@pytest.fixture
def studio(house: House) -> Studio:
    """Asks for edits."""
    return Studio(house)
