"""Draws pictures of an object that the demo does not know: examples/draw_new_object.py FOLDER.

Each has a caption beside it. docs/training.md trains an adapter on them, and generates the object
by the name of the adapter.
"""

import argparse
import random
from pathlib import Path

from PIL import Image, ImageDraw

NAME = "traffic light"
BACKGROUNDS = {  # as the demo's
    "white": "#ffffff",
    "gray": "#9aa0a6",
    "yellow": "#f9d648",
    "green": "#2e7d32",
    "blue": "#1565c0",
    "pink": "#f48fb1",
    "purple": "#6a1b9a",
    "orange": "#ef6c00",
}
CAPTIONS = ("a {name} on a {colour} background", "a {name} on {colour}", "a picture of a {name}")
SIDE_PX = 128
SHARPNESS = 4  # drawn that many times as large, then scaled down


def draw(colour: str, left: int, top: int, height: int) -> Image.Image:
    """Returns a picture of a traffic light; its place and height are in pixels."""
    scale = SHARPNESS
    picture = Image.new("RGB", (SIDE_PX * scale,) * 2, BACKGROUNDS[colour])
    pen, width = ImageDraw.Draw(picture), height // 2
    x, y, w, h = (number * scale for number in (left, top, width, height))
    pen.rounded_rectangle((x, y, x + w, y + h), w // 4, fill="#37474f")
    for index, light in enumerate(("#e53935", "#fdd835", "#43a047")):
        radius, centre_x, centre_y = h // 8, x + w // 2, y + h * (2 * index + 1) // 6
        pen.ellipse(
            (centre_x - radius, centre_y - radius, centre_x + radius, centre_y + radius), fill=light
        )
    return picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="gets NN.png and NN.txt")
parser.add_argument("--count", type=int, default=32, help="pictures to draw")
arguments = parser.parse_args()

arguments.folder.mkdir(parents=True, exist_ok=True)
for number in range(arguments.count):
    chance = random.Random(number)
    colour = list(BACKGROUNDS)[number % len(BACKGROUNDS)]
    height = chance.randint(76, 96)
    left = (SIDE_PX - height // 2) // 2 + chance.randint(-8, 8)
    top = (SIDE_PX - height) // 2 + chance.randint(-8, 8)
    file = arguments.folder / f"{number:02}.png"
    draw(colour, left, top, height).save(file)
    caption = chance.choice(CAPTIONS).format(name=NAME, colour=colour)
    file.with_suffix(".txt").write_text(caption + "\n")
print(f"{arguments.count} pictures of a {NAME} in {arguments.folder}")
