"""Reading the source of an edit: its picture and mask, checked and decoded."""

from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.edits.kind import Source
from services.orchestrator.edits.limits import MAX_EDITED_PIXELS, MAX_PIXELS, MAX_SIDE_PX
from services.orchestrator.edits.pictures import declared_size, read_picture
from services.orchestrator.edits.registry import EDITS
from services.orchestrator.picture_files import check_sides
from services.pictures import files
from services.pictures.files import ReadPicture
from services.runtime.wire.errors import invalid_field


def result_pixels(request: GenerateRequest) -> int:
    """Returns an upper bound of the pixels of all results, without decoding the picture.

    Raises:
        RequestError: INVALID_ARGUMENT: the file header is not that of a picture within the
            limits, or the results are too large.
    """
    kind = EDITS[request.WhichOneof("edit") or ""]
    one, other = declared_size(getattr(request, kind.name).image, f"{kind.name}.image")
    pictures = (request.best_of or request.count) * kind.results(request)
    # EXIF orientation may swap the sides, which only decoding the picture tells.
    sizes = (kind.result_size(request, one, other), kind.result_size(request, other, one))
    least, most = sorted(height * width for height, width in sizes)
    if least > MAX_PIXELS:
        expected = f"a result of at most {MAX_PIXELS} pixels"
        raise invalid_field(kind.name, expected=expected, got=least, advice="extend it by less")
    if least * pictures > MAX_EDITED_PIXELS:
        raise invalid_field(
            "count",
            expected=f"at most {MAX_EDITED_PIXELS // least} pictures of {least} pixels in all",
            got=pictures,
        )
    return min(most * pictures, MAX_EDITED_PIXELS)


def read_source(request: GenerateRequest, read: ReadPicture = files.read_picture) -> Source:
    """Decodes the picture and the mask of an edit by `read`.

    Raises:
        RequestError: INVALID_ARGUMENT: the picture or the mask is out of the limits or broken, or
            the format of the result cannot hold it.
    """
    kind = EDITS[request.WhichOneof("edit") or ""]
    picture = read_picture(getattr(request, kind.name).image, f"{kind.name}.image", read)
    height, width = kind.result_size(request, *picture.rgb.shape[:2])
    if max(height, width) > MAX_SIDE_PX or height * width > MAX_PIXELS:
        raise invalid_field(
            kind.name,
            expected=f"a result of at most {MAX_PIXELS} pixels and sides of at most {MAX_SIDE_PX}",
            got=f"{width} x {height}",
            advice="extend it by less",
        )
    check_sides(request, height, width)
    return Source(edit=kind.name, rgb=picture.rgb, mask=kind.read_mask(request, picture, read))


def drop_files(request: GenerateRequest) -> None:
    """Clears the files of an edit request once they are decoded; its numbers stay."""
    edit = getattr(request, request.WhichOneof("edit") or "")
    for field in edit.DESCRIPTOR.fields:
        if field.type == field.TYPE_BYTES:
            edit.ClearField(field.name)
