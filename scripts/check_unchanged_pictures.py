"""Checks that requests of every kind still return the pixels, tokens and previews they did before.

    python scripts/check_unchanged_pictures.py           # compares with unchanged_pictures.json
    python scripts/check_unchanged_pictures.py --write   # replaces this CPU's digests

The script starts the five servers on checkpoints/demo, or calls those at `--server HOST:PORT`, and
sends one request at a time. It compares SHA-256 digests of decoded pixels, so a PNG encoder may
change. Digests belong to a kind of CPU: matrix units round differently.
"""

import argparse
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from muse.common.v1.caller_pb2 import PRIORITY_BATCH, Caller
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import (
    GenerateRequest,
    GenerateResponse,
    Inpaint,
    MaskFreeEdit,
    Outpaint,
    Vary,
)
from muse.orchestrator.v1.orchestrator_pb2_grpc import OrchestratorServiceStub
from PIL import Image, ImageDraw

from tools.local import local_stack

ROOT = Path(__file__).parents[1]
DIGESTS = ROOT / "scripts/unchanged_pictures.json"
ROUNDING_FLAGS = {"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile"}
PROMPT = "a fox to the left of a mushroom on a green background"
PAPER = Sampling(guidance_scale=4)  # of mask-free edits; the checkpoint has its own default
OTHER = "a 3D picture of a pizza on a white background"
TIMEOUT_S = 120.0


# How a case is put on the wire: what a rename of proto fields touches.
def request(
    prompt: str = PROMPT,
    *,
    seed: int = 11,
    count: int = 1,
    negative: str = "",
    base: Sampling | None = None,
    superres: Sampling | None = None,
    preview_every: int = 0,
    caller: str = "",
    **edit: Any,
) -> GenerateRequest:
    """Returns a request; few steps unless `base` and `superres` say otherwise."""
    return GenerateRequest(
        prompt=prompt,
        seed=seed,
        count=count,
        negative_prompt=negative,
        base=base or Sampling(steps=6),
        superres=superres or Sampling(steps=3),
        preview_every=preview_every,
        progress=bool(preview_every),
        caller=Caller(priority=PRIORITY_BATCH, id=caller) if caller else None,
        **edit,
    )


def inpaint(
    image: bytes, mask: bytes = b"", *, feather_px: int | None = None, composite: bool = True
) -> Inpaint:
    """Returns an inpainting; without a mask the image's alpha says what to repaint."""
    return Inpaint(image=image, mask=mask, feather_px=feather_px, composite=composite)


def mask_free(
    image: bytes,
    *,
    iterations: int | None = None,
    returned: tuple[int, ...] = (),
    fraction: float | None = None,
    strength: float | None = None,
) -> MaskFreeEdit:
    """Returns a mask-free edit."""
    return MaskFreeEdit(
        image=image,
        iterations=iterations,
        return_iterations=returned,
        fraction=fraction,
        strength=strength,
    )


def outputs(responses: Iterator[GenerateResponse]) -> dict[str, str]:
    """Returns the digests of everything that one request returned, by what it is."""
    found: dict[str, str] = {}
    previews = {}
    for response in responses:
        if response.HasField("image"):
            made = response.image
            name = f"image {made.index}"
            if made.HasField("iteration"):
                name += f" after iteration {made.iteration}"
            found[name] = pixels_digest(made.png)
            tokens = "".join(f"{each.stage}:{each.steps}:{each.tokens};" for each in made.decodes)
            found[f"{name}, tokens"] = digest(tokens.encode())
        if response.HasField("progress") and response.progress.HasField("preview"):
            step, preview = response.progress, response.progress.preview
            key = (step.image, step.stage, step.part, step.step)
            # The ids at unknown places do not matter.
            ids = np.frombuffer(preview.tokens.ids, "<u2") * np.frombuffer(preview.known, np.uint8)
            previews[key] = pixels_digest(preview.png) + digest(preview.known + ids.tobytes())
    if previews:
        found["previews"] = digest(repr(sorted(previews.items())).encode())
    return found


# The pictures that edits start from.
def scene(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Returns a drawn picture, the same on every machine."""
    rows, columns = np.mgrid[0:height, 0:width]
    sky = np.stack([columns * 255 // width, rows * 255 // height, (rows + columns) % 256], -1)
    image = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 8, height // 4, width // 2, height * 3 // 4), fill=(198, 40, 40))
    draw.rectangle((width // 2, height // 2, width - 2, height - 2), fill=(46, 125, 50))
    return image.convert(mode)


def file(image: Image.Image, kind: str = "PNG", *, orientation: int = 1) -> bytes:
    """Returns a picture as a file; `orientation` is EXIF's."""
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(content, kind, exif=exif, lossless=True)
    return content.getvalue()


def mask(width: int, height: int) -> bytes:
    """Returns a mask with a hole that touches one border and a separate dot."""
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 3, 0, width // 2, height // 2), fill=255)
    draw.ellipse((width * 3 // 4, height // 2, width - 3, height * 3 // 4), fill=255)
    return file(image)


def cases() -> dict[str, GenerateRequest]:
    """Returns every request by its name."""
    square, wide, small = file(scene(128, 128)), file(scene(200, 90)), file(scene(40, 56))
    translucent = scene(100, 100, "RGBA")
    translucent.putalpha(Image.open(io.BytesIO(mask(100, 100))).point(lambda white: 255 - white))
    dot = mask(128, 128)
    quick = Sampling(steps=3)
    return {
        "generate": request(),
        "generate, default steps": request(base=Sampling(), superres=Sampling()),
        "generate, one step": request(base=Sampling(steps=1), superres=Sampling(steps=1)),
        "generate, most steps": request(base=Sampling(steps=256), superres=quick),
        "generate, another prompt": request(OTHER, seed=2),
        "generate, three": request(count=3),
        "generate, seed wraps": request(seed=2**64 - 1, count=2),
        "generate, negative prompt": request(negative=OTHER),
        "generate, three with negative prompt": request(count=3, negative="a fox"),
        "generate, guidance 0": request(
            base=Sampling(steps=6, guidance_scale=0), superres=Sampling(steps=3, guidance_scale=0)
        ),
        "generate, constant guidance": request(
            base=Sampling(steps=6, guidance_scale=3, guidance_scale_start=3),
            superres=Sampling(steps=3, guidance_scale=2, guidance_scale_start=2),
        ),
        "generate, temperature 0": request(
            base=Sampling(steps=6, temperature=0), superres=Sampling(steps=3, temperature=0)
        ),
        "generate, temperature 1.5": request(base=Sampling(steps=6, temperature=1.5)),
        "generate, choice temperature 0": request(
            base=Sampling(steps=6, choice_temperature=0),
            superres=Sampling(steps=3, choice_temperature=0),
        ),
        "generate, top-k": request(
            base=Sampling(steps=6, top_k=5), superres=Sampling(steps=3, top_k=2)
        ),
        "generate, minimum steps": request(base=Sampling(steps=6, min_steps=2)),
        "generate, previews": request(preview_every=2),
        "generate, two with previews": request(OTHER, count=2, preview_every=3),
        "generate, batch priority": request(OTHER, caller="nightly"),
        "inpaint": request(inpaint=inpaint(square, dot)),
        "inpaint, hard seam": request(inpaint=inpaint(square, dot, feather_px=0)),
        "inpaint, wide seam": request(inpaint=inpaint(square, dot, feather_px=24)),
        "inpaint, no composite": request(inpaint=inpaint(square, dot, composite=False)),
        "inpaint, alpha": request(inpaint=inpaint(file(translucent))),
        "inpaint, two with previews": request(
            OTHER, count=2, preview_every=2, inpaint=inpaint(wide, mask(200, 90))
        ),
        "inpaint, turned by EXIF": request(
            inpaint=inpaint(file(scene(96, 64), orientation=6), mask(64, 96))
        ),
        "inpaint, larger than the canvas": request(
            negative=OTHER, inpaint=inpaint(file(scene(700, 500)), mask(700, 500), feather_px=40)
        ),
        "outpaint, left": request(outpaint=Outpaint(image=square, left_px=50)),
        "outpaint, every side": request(
            OTHER,
            base=quick,
            outpaint=Outpaint(image=small, left_px=9, top_px=20, right_px=16, bottom_px=5),
        ),
        "outpaint, previews": request(preview_every=2, outpaint=Outpaint(image=wide, bottom_px=60)),
        "mask-free edit": request(base=PAPER, mask_free_edit=mask_free(square, iterations=8)),
        "mask-free edit, default iterations": request(
            OTHER, base=PAPER, mask_free_edit=mask_free(small)
        ),
        "mask-free edit, returned iterations": request(
            base=PAPER, mask_free_edit=mask_free(wide, iterations=8, returned=(0, 3, 5))
        ),
        "mask-free edit, strength": request(
            base=Sampling(guidance_scale=2, top_k=0),
            mask_free_edit=mask_free(square, strength=0.04),
        ),
        "mask-free edit, fraction and previews": request(
            base=PAPER,
            preview_every=3,
            mask_free_edit=mask_free(file(scene(90, 90), "WEBP"), iterations=6, fraction=0.3),
        ),
        "vary": request(vary=Vary(image=square)),
        "vary, strength": request(OTHER, vary=Vary(image=wide, strength=0.2)),
        "vary, no prompt": request("", vary=Vary(image=file(scene(64, 64, "P")), strength=0.8)),
        "vary, two with previews": request(count=2, preview_every=2, vary=Vary(image=small)),
    }


def pixels_digest(png: bytes) -> str:
    """Returns the digest of a picture's mode, size and pixels."""
    with Image.open(io.BytesIO(png)) as image:
        return digest(f"{image.mode} {image.size} ".encode() + image.tobytes())


def digest(content: bytes) -> str:
    """Returns 16 hex digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def cpu_kind() -> str:
    """Returns maker and flags of this CPU that change how matrix products round."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags, (*_, maker) = (
        next(line for line in lines if line.startswith(name)).split()
        for name in ("flags", "vendor_id")
    )
    return " ".join([maker, *sorted(ROUNDING_FLAGS & set(flags))])


def paint(address: str) -> dict[str, dict[str, str]]:
    """Sends every request to an orchestrator; returns the digests of each."""
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    found = {}
    with grpc.insecure_channel(address, options=unlimited) as channel:
        stub: Any = OrchestratorServiceStub(channel)
        for name, each in cases().items():
            start_s = time.monotonic()
            found[name] = outputs(stub.Generate(each, timeout=TIMEOUT_S))
            print(f"{time.monotonic() - start_s:6.2f} s  {name}", flush=True)
    return found


def differences(
    stored: dict[str, dict[str, str]], found: dict[str, dict[str, str]]
) -> Iterator[str]:
    """Yields a line for each request whose outputs differ: its name and which outputs."""
    for name in sorted(stored.keys() | found.keys()):
        old, new = stored.get(name, {}), found.get(name, {})
        outputs = [
            each for each in sorted(old.keys() | new.keys()) if old.get(each) != new.get(each)
        ]
        if outputs:
            yield f"{name}: {'; '.join(outputs)}"


def main() -> None:
    """Compares, or writes with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="replace this CPU's digests")
    parser.add_argument(
        "--server", help="HOST:PORT of an orchestrator that serves checkpoints/demo"
    )
    arguments = parser.parse_args()
    stored = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    kind = cpu_kind()
    if kind not in stored and not arguments.write:
        raise SystemExit(
            f"no digests for this CPU: expected one of {sorted(stored)}, got {kind!r}; run the "
            "script with --write at the commit to compare with, then here"
        )
    os.environ.pop("XLA_FLAGS", None)  # tests compile with other flags, which may round differently
    with ExitStack() as stack:
        address = arguments.server
        if address is None:
            servers = local_stack(ROOT / "checkpoints/demo", io.StringIO())
            address = stack.enter_context(servers).address
        found = paint(address)
    if arguments.write:
        DIGESTS.write_text(json.dumps(stored | {kind: found}, indent=1) + "\n")
        print(f"wrote the digests of {len(found)} requests to {DIGESTS.relative_to(ROOT)}")
        return
    changed = list(differences(stored[kind], found))
    if changed:
        raise SystemExit("changed:\n  " + "\n  ".join(changed))
    print(f"{len(found)} requests, nothing changed")


if __name__ == "__main__":
    main()
