"""Metadata of image files: prompt, seed, checkpoints, adapters, and the mark of generated pictures.

An XMP packet carries all fields, since PNG, JPEG and WebP can hold one; a PNG has text chunks, too.
"""

import json

from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, Provenance
from PIL.PngImagePlugin import PngInfo

from services.pictures.xmp import XMP_CHUNK, well_formed, xmp_packet


def picture_fields(request: GenerateRequest, seed: int, provenance: Provenance) -> dict[str, str]:
    """Returns what an image's file says of its origin, by field; empty where it says nothing."""
    adapters = {each.name: each.weight for each in provenance.adapters}
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": str(seed),
        "preset": provenance.preset,
        "checkpoints": json.dumps(dict(sorted(provenance.checkpoints.items()))),
        "adapters": json.dumps(adapters) if adapters else "",
        "edit": request.WhichOneof("edit") or "",
        "source": "AI-edited" if request.WhichOneof("edit") else "AI-generated",
    }


def png_metadata(fields: dict[str, str]) -> PngInfo:
    """Returns the text chunks of an image's PNG; equal fields give equal bytes."""
    info = PngInfo()
    for name, value in fields.items():
        if value:
            info.add_itxt(name, well_formed(value))
    info.add_itxt(XMP_CHUNK, xmp_packet(fields))
    return info
