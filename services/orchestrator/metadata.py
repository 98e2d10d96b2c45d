"""Metadata of image files: prompt, seed, checkpoints, adapters, and the mark of generated pictures.

An XMP packet carries all fields, since PNG, JPEG and WebP can hold one; a PNG has text chunks, too.

Source: IPTC Photo Metadata Standard, "Digital Source Type"; its vocabulary at
cv.iptc.org/newscodes/digitalsourcetype. Adobe XMP Specification, part 1.
"""

import json
import re
from xml.sax.saxutils import escape, quoteattr

from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, Provenance
from PIL.PngImagePlugin import PngInfo

_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
SOURCE_TYPE = _TYPES + "trainedAlgorithmicMedia"
EDITED_TYPE = _TYPES + "compositeWithTrainedAlgorithmicMedia"
CR = "\r"  # a reader of XML takes it for a newline unless it is escaped
XMP_CHUNK = "XML:com.adobe.xmp"  # the keyword of PNG's text chunk


# Neither XML nor a text chunk may hold any other.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def well_formed(text: str) -> str:
    """Returns a text with U+FFFD for each character that XML, HTML and PNG cannot hold.

    Source: Extensible Markup Language (XML) 1.0, section 2.2.
    """
    return _FORBIDDEN.sub("\ufffd", text)


def png_metadata(request: GenerateRequest, seed: int, provenance: Provenance) -> PngInfo:
    """Returns the text chunks of an image's PNG; equal requests give equal bytes."""
    adapters = {each.name: each.weight for each in provenance.adapters}
    fields = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": str(seed),
        "preset": provenance.preset,
        "checkpoints": json.dumps(dict(sorted(provenance.checkpoints.items()))),
        "adapters": json.dumps(adapters) if adapters else "",
        "edit": request.WhichOneof("edit") or "",
        "source": "AI-edited" if request.WhichOneof("edit") else "AI-generated",
    }
    info = PngInfo()
    for name, value in fields.items():
        if value:
            info.add_itxt(name, well_formed(value))
    info.add_itxt(XMP_CHUNK, xmp_packet(fields))
    return info


def xmp_packet(fields: dict[str, str]) -> str:
    """Returns an XMP packet: the prompt, the IPTC source type, and every field with a value."""
    source_type = EDITED_TYPE if fields.get("edit") else SOURCE_TYPE
    own = "".join(
        f" muse:{name}={quoteattr(well_formed(value))}" for name, value in fields.items() if value
    )
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about=""'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' xmlns:muse="urn:muse:picture:1"'
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(source_type)}{own}>"
        '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">'
        f"{escape(well_formed(fields['prompt']), {CR: '&#13;'})}"
        "</rdf:li></rdf:Alt></dc:description>"
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )
