"""Edits of pictures: as messages, and as methods of both clients.

An image is a file's name, its bytes, or a PIL image.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar, Unpack

from muse.orchestrator.v1.orchestrator_pb2 import Inpaint, MaskFreeEdit, Outpaint, Vary
from PIL import Image

from muse_client.calls import GenerateOptions
from muse_client.errors import invalid_request

ImageFile = str | PathLike[str] | bytes | Image.Image
Message = TypeVar("Message", Inpaint, Outpaint, MaskFreeEdit, Vary)
Answer = TypeVar("Answer")


class EditMethods(ABC, Generic[Answer]):
    """The methods of both clients that edit a picture; each is a `generate` with an edit."""

    @abstractmethod
    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> Answer:
        """Sends a request and returns its images."""

    def inpaint(
        self,
        image: ImageFile,
        mask: ImageFile | None,
        prompt: str,
        *,
        feather_px: int | None = None,
        composite: bool = True,
        **options: Unpack[GenerateOptions],
    ) -> Answer:
        """Returns the picture with what the mask covers painted anew, once for each seed.

        Args:
            image: The picture.
            mask: White where new, black where kept; None for the picture's alpha.
            prompt: What the whole picture shows.
            feather_px: Pixels inside the mask over which the new fades in, 0 to 1024.
            composite: Whether pixels outside the mask come back as they were; if not, the whole
                picture is the decoded one.
            options: As in `generate`.

        Raises:
            MuseError: the call failed; its subclass says how.
            OSError: a file cannot be read.
        """
        options["inpaint"] = inpainting(image, mask, feather_px=feather_px, composite=composite)
        return self.generate(prompt, **options)

    def outpaint(
        self,
        image: ImageFile,
        prompt: str,
        *,
        left_px: int = 0,
        top_px: int = 0,
        right_px: int = 0,
        bottom_px: int = 0,
        **options: Unpack[GenerateOptions],
    ) -> Answer:
        """Returns the picture extended by so many pixels, once for each seed.

        Args:
            image: The picture.
            prompt: What the whole picture shows.
            left_px: Pixels to add on the left.
            top_px: Pixels to add on top.
            right_px: Pixels to add on the right.
            bottom_px: Pixels to add at the bottom.
            options: As in `generate`.

        Raises:
            MuseError: the call failed; its subclass says how.
            OSError: the file cannot be read.
        """
        options["outpaint"] = outpainting(
            image, left_px=left_px, top_px=top_px, right_px=right_px, bottom_px=bottom_px
        )
        return self.generate(prompt, **options)

    def mask_free_edit(
        self,
        image: ImageFile,
        prompt: str,
        *,
        iterations: int | None = None,
        fraction: float | None = None,
        return_iterations: Iterable[int] = (),
        strength: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Answer:
        """Returns the picture changed towards the prompt without a mask.

        Args:
            image: The picture.
            prompt: What the changed picture shows.
            iterations: 1 to 256; 100 by default.
            fraction: Share of the tokens that each iteration draws anew; 0.08 by default.
            return_iterations: Iterations after which the picture is returned besides the last;
                `iteration` of each image says which it is.
            strength: More than 0 to 1, instead of `iterations`: 200 times that.
            options: As in `generate`.

        Raises:
            MuseError: the call failed; its subclass says how.
            OSError: the file cannot be read.
        """
        options["mask_free_edit"] = mask_free_editing(
            image,
            iterations=iterations,
            fraction=fraction,
            return_iterations=return_iterations,
            strength=strength,
        )
        return self.generate(prompt, **options)

    def vary(
        self,
        image: ImageFile,
        prompt: str = "",
        *,
        strength: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Answer:
        """Returns the picture with a share of it painted anew, once for each seed.

        Args:
            image: The picture.
            prompt: What it shows; empty, only the picture decides.
            strength: Share of the tokens to paint anew, more than 0 to 1; 0.5 by default.
            options: As in `generate`.

        Raises:
            MuseError: the call failed; its subclass says how.
            OSError: the file cannot be read.
        """
        options["vary"] = variation(image, strength=strength)
        return self.generate(prompt, **options)


def inpainting(
    image: ImageFile,
    mask: ImageFile | None = None,
    *,
    feather_px: int | None = None,
    composite: bool = True,
) -> Inpaint:
    """Returns the message of `EditMethods.inpaint`."""
    message = Inpaint(image=file_bytes(image), composite=composite)
    if mask is not None:
        message.mask = file_bytes(mask)
    return _filled("inpaint", message, feather_px=feather_px)


def outpainting(
    image: ImageFile, *, left_px: int = 0, top_px: int = 0, right_px: int = 0, bottom_px: int = 0
) -> Outpaint:
    """Returns the message of `EditMethods.outpaint`."""
    sides = {"left_px": left_px, "top_px": top_px, "right_px": right_px, "bottom_px": bottom_px}
    return _filled("outpaint", Outpaint(image=file_bytes(image)), **sides)


def mask_free_editing(
    image: ImageFile,
    *,
    iterations: int | None = None,
    fraction: float | None = None,
    return_iterations: Iterable[int] = (),
    strength: float | None = None,
) -> MaskFreeEdit:
    """Returns the message of `EditMethods.mask_free_edit`."""
    message = MaskFreeEdit(image=file_bytes(image))
    _filled("mask_free_edit", message, iterations=iterations, fraction=fraction, strength=strength)
    try:
        message.return_iterations.extend(return_iterations)
    except (TypeError, ValueError) as error:
        raise invalid_request(
            "mask_free_edit.return_iterations", f"expected iterations, got {return_iterations}"
        ) from error
    return message


def variation(image: ImageFile, *, strength: float | None = None) -> Vary:
    """Returns the message of `EditMethods.vary`."""
    return _filled("vary", Vary(image=file_bytes(image)), strength=strength)


def file_bytes(image: ImageFile) -> bytes:
    """Returns a picture as a file: what it is already, or a PNG of the same mode."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        content = io.BytesIO()
        image.save(content, "PNG")
        return content.getvalue()
    return Path(image).read_bytes()


def _filled(edit: str, message: Message, **numbers: Any) -> Message:
    """Sets the numbers that are not None; names one that does not fit its field."""
    for name, value in numbers.items():
        if value is not None:
            try:
                setattr(message, name, value)
            except (TypeError, ValueError) as error:
                raise invalid_request(
                    f"{edit}.{name}", f"expected a number from 0 up, got {value}"
                ) from error
    return message
