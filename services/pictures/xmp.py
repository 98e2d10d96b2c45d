"""XMP packets: what a picture's file says of its origin, in every format that Muse writes.

Source: Adobe XMP Specification, part 1, and part 3 for GIF; IPTC Photo Metadata Standard, "Digital
Source Type", whose vocabulary is at cv.iptc.org/newscodes/digitalsourcetype.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from PIL import Image
from PIL.PngImagePlugin import PngInfo

_DESCRIPTION = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
_NAMESPACE = "{urn:muse:picture:1}"
_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
SOURCE_TYPE = _TYPES + "trainedAlgorithmicMedia"
EDITED_TYPE = _TYPES + "compositeWithTrainedAlgorithmicMedia"
_MAX_BYTES = 65_502  # of a packet in a JPEG
CR = "\r"  # a reader of XML takes it for a newline unless it is escaped
XMP_CHUNK = "XML:com.adobe.xmp"  # the keyword of PNG's text chunk
_GIF_HEADER_BYTES = 13  # with the screen descriptor, after which the global palette comes
# An application extension. What reads blocks of GIF comes out of the packet at any of its bytes by
# the descending lengths behind it, and ends at the 0 after them.
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
_GIF_XMP_END = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"


# Neither XML nor a text chunk may hold any other.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def well_formed(text: str) -> str:
    """Returns a text with U+FFFD for each character that XML, HTML and PNG cannot hold.

    Source: Extensible Markup Language (XML) 1.0, section 2.2.
    """
    return _FORBIDDEN.sub("\ufffd", text)


def source_type(fields: Mapping[str, str]) -> str:
    """Returns the IPTC source type of a picture: edited with the field `edit`, or generated."""
    return EDITED_TYPE if fields.get("edit") else SOURCE_TYPE


def xmp_packet(fields: Mapping[str, str]) -> str:
    """Returns an XMP packet: the prompt, the IPTC source type, and every field with a value.

    A packet that a JPEG could not hold lacks the description, which repeats the prompt.
    """
    packet = _packet(fields, fields.get("prompt", ""))
    return packet if len(packet.encode()) <= _MAX_BYTES else _packet(fields, "")


def _packet(fields: Mapping[str, str], description: str) -> str:
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
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(source_type(fields))}{own}>"
        '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">'
        f"{escape(well_formed(description), {CR: '&#13;'})}"
        "</rdf:li></rdf:Alt></dc:description>"
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def fields_of(image: Image.Image) -> dict[str, str]:
    """Returns the fields of a picture's own XMP packet; none without a packet.

    Args:
        image: What Pillow read of a file, its pixels included: a PNG may have them first.
    """
    packet = image.info.get("xmp", b"").decode()
    begin, end = packet.find("<x:xmpmeta"), packet.find("<?xpacket end")
    if begin < 0:
        return {}
    description = next(ElementTree.fromstring(packet[begin:end]).iter(_DESCRIPTION))
    return {
        name.removeprefix(_NAMESPACE): value
        for name, value in description.attrib.items()
        if name.startswith(_NAMESPACE)
    }


def joint_packet(pictures: Sequence[Mapping[str, str]]) -> str:
    """Returns the XMP packet of a file that shows several pictures, such as a sheet.

    Args:
        pictures: Fields of each picture; one that differs between them is listed, by commas.
    """
    names = dict.fromkeys(name for fields in pictures for name in fields)
    return xmp_packet(
        {
            name: ", ".join(dict.fromkeys(fields[name] for fields in pictures if name in fields))
            for name in names
        }
    )


def file_with_xmp(image: Image.Image, file_format: str, packet: str, **options: Any) -> bytes:
    """Returns a file of an image, or of an animation, that has an XMP packet.

    Args:
        image: The image, or the first frame.
        file_format: "PNG", "JPEG", "WEBP" or "GIF".
        packet: The XMP packet.
        options: Options as of Pillow's `save`.
    """
    if file_format == "PNG":
        info = PngInfo()
        info.add_itxt(XMP_CHUNK, packet)
        options["pnginfo"] = info
    elif file_format != "GIF":
        options["xmp"] = packet.encode()
    file = io.BytesIO()
    image.save(file, file_format, **options)
    content = file.getvalue()
    return _gif_with_xmp(content, packet) if file_format == "GIF" else content


def _gif_with_xmp(gif: bytes, packet: str) -> bytes:
    """Returns a GIF file with an XMP packet before its frames, which Pillow itself cannot write."""
    flags = gif[10]
    palette_bytes = 3 << ((flags & 7) + 1) if flags & 0x80 else 0
    start = _GIF_HEADER_BYTES + palette_bytes
    xmp = _GIF_XMP + packet.encode() + _GIF_XMP_END
    return b"GIF89a" + gif[6:start] + xmp + gif[start:]  # 87a has no extensions
