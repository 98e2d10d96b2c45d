"""Small artwork that the tests draw themselves: plain shapes in plain colours."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

NAMES = ("ball", "box", "egg", "ring", "star", "tile", "moon", "drum")
STYLES = {"solid": "solid", "outline": "outlined"}


def picture(index: int, style: str) -> Image.Image:
    """Draws one object: its shape and colour follow from its index."""
    image = Image.new("RGBA", (40, 40 if index % 2 else 28), (0, 0, 0, 0))
    colour = (40 + 25 * index, 255 - 30 * index, (90 * index) % 256, 255)
    draw = ImageDraw.Draw(image)
    shape = draw.ellipse if index % 3 else draw.rectangle
    box = (1, 1, image.width - 2, image.height - 2)
    if style == "solid":
        shape(box, fill=colour)
    else:
        shape(box, outline=colour, width=6)
    return image


@pytest.fixture(scope="session")
def artwork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sprites in the format that training reads."""
    folder = tmp_path_factory.mktemp("artwork")
    objects = [
        {
            "name": name,
            "singular": name,
            "plural": name + "s",
            "sprites": {style: f"{style}-{name}" for style in STYLES},
        }
        for name in NAMES
    ]
    vocabulary = {
        "objects": objects,
        "styles": STYLES,
        "backgrounds": {"white": "#ffffff", "navy": "#000080", "green": "#2e7d32"},
    }
    (folder / "scene_vocabulary.json").write_text(json.dumps(vocabulary))
    with tarfile.open(folder / "scene-sprites.tar", "w") as archive:
        for index, name in enumerate(NAMES):
            for style in STYLES:
                buffer = io.BytesIO()
                picture(index, style).save(buffer, "PNG")
                member = tarfile.TarInfo(f"{style}-{name}.png")
                member.size = buffer.tell()
                buffer.seek(0)
                archive.addfile(member, buffer)
    return folder
