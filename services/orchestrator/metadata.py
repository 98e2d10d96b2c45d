"""What a picture's file says of itself: prompt, seed, checkpoints, and that it was generated.

Source: IPTC Photo Metadata Standard, "Digital Source Type"; its vocabulary at
cv.iptc.org/newscodes/digitalsourcetype.
"""

import json

from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, Receipt
from PIL.PngImagePlugin import PngInfo

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def png_metadata(request: GenerateRequest, seed: int, receipt: Receipt) -> PngInfo:
    """Returns the text chunks of a picture; the same request makes the same bytes."""
    info = PngInfo()
    info.add_itxt("prompt", request.prompt)
    if request.negative_prompt:
        info.add_itxt("negative_prompt", request.negative_prompt)
    info.add_text("seed", str(seed))
    info.add_text("preset", receipt.preset)
    info.add_text("checkpoints", json.dumps(dict(sorted(receipt.checkpoints.items()))))
    info.add_text("source", "AI-generated")
    info.add_itxt("XML:com.adobe.xmp", XMP)
    return info
