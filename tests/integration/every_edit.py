"""Every edit of a picture through a whole system, and what each of them has to keep."""

import numpy as np
from muse_client import GeneratedImage, MuseClient
from PIL import Image


def check_every_edit(client: MuseClient) -> list[GeneratedImage]:
    """Edits a picture in every way, checks what came back, and returns it."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    picture, mask = Image.fromarray(pixels), np.zeros((40, 50), bool)
    mask[10:20, 5:25] = True
    marked = Image.fromarray(mask.astype(np.uint8) * 255)
    (inpainted,) = client.inpaint(picture, marked, "a fox", seed=1)
    (outpainted,) = client.outpaint(picture, "a fox", left_px=30, seed=1)
    edited = client.mask_free_edit(picture, "a fox", iterations=6, return_iterations=[0, 3], seed=1)
    varied = [client.vary(picture, prompt, seed=1)[0] for prompt in ("", "a fox")]

    assert (np.asarray(inpainted.image)[~mask] == pixels[~mask]).all()
    assert (np.asarray(inpainted.image)[mask] != pixels[mask]).any()
    assert outpainted.image.size == (80, 40)
    assert (np.asarray(outpainted.image)[:, 30:] == pixels).all()
    assert [each.iteration for each in edited] == [0, 3, 6]
    assert [each.decodes[0].steps for each in edited] == [6, 6, 6]
    assert {each.image.size for each in [*edited, *varied]} == {(50, 40)}
    assert varied[0].png != varied[1].png
    return [inpainted, outpainted, *edited, *varied]
