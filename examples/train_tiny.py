"""Trains all stages of the preset tiny on objects drawn here: python examples/train_tiny.py FOLDER.

The pictures of this preset are noise: it has some thousand parameters and takes a few steps. The
example shows the order of the stages, the format of the data and which file goes where.
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

from PIL import Image, ImageDraw

OBJECTS = ("ball", "box", "egg", "ring", "star", "tile", "moon", "drum")
STYLES = {"solid": "solid", "outline": "outlined"}  # a style's name, and its word in captions
BACKGROUNDS = {"white": "#ffffff", "navy": "#000080", "green": "#2e7d32"}
STAGES = {  # by the folder of its checkpoint; each is trained on the checkpoints before it
    "text_encoder": ("text_encoder",),
    "tokenizer/low": ("tokenizer", "--resolution", "low"),
    "tokenizer/high": ("tokenizer", "--resolution", "high"),
    "base": ("base",),
    "superres": ("superres",),
}


def draw_objects(folder: Path) -> None:
    """Writes a folder of sprites: a scene vocabulary, and a tar of cut-out pictures by name."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "scene-sprites.tar", "w") as archive:
        for index, name in enumerate(OBJECTS):
            for style in STYLES:
                sprite = Image.new("RGBA", (40, 40 if index % 2 else 28))  # transparent
                draw = ImageDraw.Draw(sprite)
                shape = draw.ellipse if index % 3 else draw.rectangle
                colour = (40 + 25 * index, 255 - 30 * index, 90 * index % 256)
                fill = colour if style == "solid" else None
                shape((1, 1, 38, sprite.height - 2), fill=fill, outline=colour, width=6)
                file = io.BytesIO()
                sprite.save(file, "PNG")
                member = tarfile.TarInfo(f"{style}-{name}.png")
                member.size = file.tell()
                file.seek(0)
                archive.addfile(member, file)
    objects = [
        {
            "name": name,
            "singular": name,
            "plural": f"{name}s",
            "sprites": {style: f"{style}-{name}" for style in STYLES},
        }
        for name in OBJECTS
    ]
    vocabulary = {"objects": objects, "styles": STYLES, "backgrounds": BACKGROUNDS}
    (folder / "scene_vocabulary.json").write_text(json.dumps(vocabulary, indent=2))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="gets data/, runs/ and checkpoints/")
parser.add_argument("--steps", default="20", help="optimizer steps of each stage")
arguments = parser.parse_args()

draw_objects(arguments.folder / "data")
for place, command in STAGES.items():
    if (arguments.folder / "checkpoints" / place / "training.json").is_file():
        print(f"{place} is there: not trained again")
        continue
    # A run keeps its state in --out, so that an interrupted one resumes, and ends by writing the
    # checkpoint that the stage's service reads from --checkpoints.
    options = {
        "--preset": "tiny",
        "--data": arguments.folder / "data",
        "--checkpoints": arguments.folder / "checkpoints",
        "--out": arguments.folder / "runs" / place,
        "--steps": arguments.steps,
    }
    words = [str(word) for option in options.items() for word in option]
    subprocess.run([sys.executable, "-m", "training", *command, *words], check=True)
print(f"to serve them: muse up --preset tiny --checkpoints {arguments.folder / 'checkpoints'}")
