"""Repaints a box of a picture: python examples/inpaint.py photo.png "a pizza" --box 64 0 128 64."""

import argparse
from pathlib import Path

from muse_client import DEFAULT_ADDRESS, InvalidRequest, MuseClient
from PIL import Image, ImageDraw

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("picture", type=Path, help="PNG, JPEG or WebP, at most 2^24 pixels")
parser.add_argument("prompt", help="of the whole picture, not of the box alone")
parser.add_argument("--box", type=int, nargs=4, required=True, help="left, top, right, bottom")
parser.add_argument("--address", default=DEFAULT_ADDRESS, help="of the orchestrator")
parser.add_argument("--out", type=Path, default=Path("inpainted.png"))
arguments = parser.parse_args()

left, top, right, bottom = arguments.box
mask = Image.new("L", Image.open(arguments.picture).size)  # black: pixels that are kept
ImageDraw.Draw(mask).rectangle((left, top, right - 1, bottom - 1), fill=255)  # white: new

with MuseClient(arguments.address, timeout_s=120) as muse:
    try:
        # Without `seed` the server draws one. Pixels outside the mask come back unchanged.
        (image,) = muse.inpaint(arguments.picture, mask, arguments.prompt, feather_px=2)
    except InvalidRequest as error:  # such as a box outside the picture: no pixel is white
        raise SystemExit(f"refused: {error}") from error
arguments.out.write_bytes(image.png)
print(f"{arguments.out}, seed {image.seed}")
