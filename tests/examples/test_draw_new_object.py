"""The example that draws what an adapter is trained on."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from tests.examples.running import run_python


async def test_each_picture_is_new_and_its_caption_names_the_object_and_the_background(
    tmp_path: Path,
) -> None:
    status, output = await run_python("draw_new_object.py", "new", "--count", "24", cwd=tmp_path)

    assert status == 0, output
    pictures = sorted((tmp_path / "new").glob("*.png"))
    assert len({file.read_bytes() for file in pictures}) == 24
    corners: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for file in pictures:
        pixels = np.asarray(Image.open(file))
        assert pixels.shape == (128, 128, 3)
        caption = file.with_suffix(".txt").read_text()
        assert "traffic light" in caption
        if " on " in caption:
            colour = caption.split(" on ")[1].removeprefix("a ").split()[0]
            corners[colour].add(tuple(pixels[0, 0].tolist()))
    assert len(corners) > 4
    assert all(len(each) == 1 for each in corners.values())  # a colour has one name
    assert len(set.union(*corners.values())) == len(corners)
