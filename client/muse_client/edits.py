"""Edits of pictures: messages, and the methods of both clients that send them.

A picture is the name of a file, its bytes, a file that is open for reading bytes, or a PIL image.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Generic, TypedDict, TypeVar, Unpack

from muse.orchestrator.v1.orchestrator_pb2 import Inpaint, MaskFreeEdit, Outpaint, Vary

from muse_client.errors import invalid_request, set_fields
from muse_client.picture_files import ImageFile, file_bytes

if TYPE_CHECKING:  # its options include those of this module
    from muse_client.calls import GenerateOptions

Answer = TypeVar("Answer")


class EditOptions(TypedDict, total=False):
    """Edits of a request; a request without one generates.

    Attributes:
        inpaint: Repaints the masked part of a picture; see `inpainting`.
        outpaint: Extends a picture; see `outpainting`.
        mask_free_edit: Changes a picture without a mask; see `mask_free_editing`.
        vary: Paints a share of a picture anew; see `variation`.
    """

    inpaint: Inpaint
    outpaint: Outpaint
    mask_free_edit: MaskFreeEdit
    vary: Vary


class EditMethods(ABC, Generic[Answer]):
    """Methods of both clients that edit a picture; each calls `generate` with an edit."""

    @abstractmethod
    def generate(self, prompt: str, **options: Unpack["GenerateOptions"]) -> Answer:
        """Sends a request and returns its images."""

    def inpaint(
        self,
        image: ImageFile,
        mask: ImageFile | None,
        prompt: str,
        *,
        feather_px: int | None = None,
        composite: bool = True,
        mask_is_alpha: bool = False,
        **options: Unpack["GenerateOptions"],
    ) -> Answer:
        """Repaints the masked part of a picture; returns one image for each seed.

        Args:
            image: The picture.
            mask: Mask of the picture's size: white is repainted, black kept. None takes the
                transparent pixels of the picture.
            prompt: Description of the whole picture.
            feather_px: Pixels inside the mask over which new pixels fade in, 0 to 1024.
            composite: Whether pixels outside the mask stay unchanged; False returns the whole
                decoded picture.
            mask_is_alpha: Whether the transparent pixels of the mask are repainted, whatever their
                colour, as with OpenAI's images API.
            options: As in `generate`.

        Raises:
            MuseError: the call failed.
            OSError: a file cannot be read.
        """
        options["inpaint"] = inpainting(
            image,
            mask,
            feather_px=feather_px,
            composite=composite,
            mask_is_alpha=mask_is_alpha,
        )
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
        **options: Unpack["GenerateOptions"],
    ) -> Answer:
        """Extends a picture beyond its borders; returns one image for each seed.

        Args:
            image: The picture.
            prompt: Description of the whole picture.
            left_px: Pixels to add on the left.
            top_px: Pixels to add on top.
            right_px: Pixels to add on the right.
            bottom_px: Pixels to add at the bottom.
            options: As in `generate`.

        Raises:
            MuseError: the call failed.
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
        **options: Unpack["GenerateOptions"],
    ) -> Answer:
        """Changes a picture towards a prompt without a mask.

        Args:
            image: The picture.
            prompt: Description of the changed picture.
            iterations: 1 to 256; 100 by default.
            fraction: Share of the tokens that each iteration resamples; 0.08 by default.
            return_iterations: Iterations after which the picture is returned, besides the last;
                each image has its `iteration`.
            strength: Strength of the edit, more than 0 to 1: 200 times that many iterations.
            options: As in `generate`.

        Raises:
            MuseError: the call failed.
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
        **options: Unpack["GenerateOptions"],
    ) -> Answer:
        """Paints a random share of a picture anew; returns one image for each seed.

        Args:
            image: The picture.
            prompt: Description of the result; empty for none.
            strength: Share of the tokens to decode anew, more than 0 to 1; 0.5 by default.
            options: As in `generate`.

        Raises:
            MuseError: the call failed.
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
    mask_is_alpha: bool = False,
) -> Inpaint:
    """Returns the message of `EditMethods.inpaint`."""
    message = Inpaint(
        image=file_bytes(image, "inpaint.image"), composite=composite, mask_is_alpha=mask_is_alpha
    )
    if mask is not None:
        message.mask = file_bytes(mask, "inpaint.mask")
    return set_fields(message, {"feather_px": feather_px}, "inpaint.")


def outpainting(
    image: ImageFile, *, left_px: int = 0, top_px: int = 0, right_px: int = 0, bottom_px: int = 0
) -> Outpaint:
    """Returns the message of `EditMethods.outpaint`."""
    sides = {"left_px": left_px, "top_px": top_px, "right_px": right_px, "bottom_px": bottom_px}
    return set_fields(Outpaint(image=file_bytes(image, "outpaint.image")), sides, "outpaint.")


def mask_free_editing(
    image: ImageFile,
    *,
    iterations: int | None = None,
    fraction: float | None = None,
    return_iterations: Iterable[int] = (),
    strength: float | None = None,
) -> MaskFreeEdit:
    """Returns the message of `EditMethods.mask_free_edit`."""
    message = MaskFreeEdit(image=file_bytes(image, "mask_free_edit.image"))
    numbers = {"iterations": iterations, "fraction": fraction, "strength": strength}
    set_fields(message, numbers, "mask_free_edit.")
    try:
        message.return_iterations.extend(return_iterations)
    except (TypeError, ValueError) as error:
        raise invalid_request(
            "mask_free_edit.return_iterations", f"expected iterations, got {return_iterations}"
        ) from error
    return message


def variation(image: ImageFile, *, strength: float | None = None) -> Vary:
    """Returns the message of `EditMethods.vary`."""
    return set_fields(Vary(image=file_bytes(image, "vary.image")), {"strength": strength}, "vary.")
