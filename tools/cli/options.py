"""Options shared by `muse generate` and the edit commands."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from services.sampling import NO_FLAGS, SamplingFlags, given

if TYPE_CHECKING:
    from muse_client import GenerateOptions, MuseClient, Tls

# With a leading hyphen it is still the prompt, unless an option has that name.
Prompt = Annotated[str, Parameter(allow_leading_hyphen=True)]
Server = Annotated[str | None, Parameter(env_var="MUSE_SERVER")]


@dataclass(frozen=True, kw_only=True)
class TlsFlags:
    """TLS of calls to the server; plain text without any of these.

    Attributes:
        tls_ca: File of the authorities that sign the server's certificate, in PEM; those that are
            public by default.
        tls_cert: File of the certificate that the server is shown, in PEM.
        tls_key: File of its private key, in PEM without a password.
        tls_server_name: Name that the server's certificate must have; the host of its address by
            default.
    """

    tls_ca: Annotated[Path | None, Parameter(env_var="MUSE_TLS_CA")] = None
    tls_cert: Annotated[Path | None, Parameter(env_var="MUSE_TLS_CERT")] = None
    tls_key: Annotated[Path | None, Parameter(env_var="MUSE_TLS_KEY")] = None
    tls_server_name: Annotated[str, Parameter(env_var="MUSE_TLS_SERVER_NAME")] = ""

    def tls(self) -> "Tls | None":
        """Returns the TLS of a client; None for plain text.

        Raises:
            ValueError: a certificate is given without its key, or the reverse.
        """
        if self == PLAIN_TEXT:
            return None
        from muse_client import Tls

        return Tls(
            ca=self.tls_ca,
            cert=self.tls_cert,
            key=self.tls_key,
            server_name=self.tls_server_name,
        )


PLAIN_TEXT = TlsFlags()
Transport = Annotated[TlsFlags, Parameter(name="*")]


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """Options of every command that paints.

    Attributes:
        negative_prompt: Description of what the images must not show.
        seed: Seed of the first image, 0 to 2^64 - 1; image i has seed + i. Random by default.
        count: Number of images, 1 to 16.
        best_of: Number of candidates to rank, up to 16; the best are written, best first. Needs an
            orchestrator with a scorer.
        safety_policy: What is done with pictures that the server's classifier takes for explicit:
            at least what the server's own policy says.
        steps: Decoding steps of the base, 1 to 256.
        superres_steps: Decoding steps of the super-resolution, 1 to 256.
        sampling: Sampling parameters of base and, where there is one, of superres.
        adapter: Low-rank adapter to apply, as NAME or NAME=WEIGHT with a weight of -10 to 10, 1 by
            default; repeat the flag for each one.
        out: File to write: .png, .jpg or .webp. Several images get numbers and a contact sheet.
        server: Address of an orchestrator, HOST:PORT.
        checkpoints: Folder of checkpoints; servers with them are started for this call.
        preview_every: Steps between two previews, 1 to 256; 1 by default with any of the next
            three options.
        preview_dir: Folder to write every preview into.
        filmstrip: File of all previews in a row with their steps: .png, .jpg or .webp.
        animate: File of an animation of the first image's previews: .gif or .webp.
        trace: Draw the timeline of each image.
        trace_html: File of the same timeline as a page: .html.
    """

    negative_prompt: str = ""
    seed: int | None = None
    count: int = 1
    best_of: int = 0
    safety_policy: Literal["tag", "blur", "block"] | None = None
    steps: int | None = None
    superres_steps: int | None = None
    sampling: Annotated[SamplingFlags, Parameter(name="*")] = NO_FLAGS
    adapter: tuple[str, ...] = ()
    out: Path = Path("out/muse.png")
    server: Server = None
    transport: Transport = PLAIN_TEXT
    checkpoints: Path | None = None
    preview_every: int | None = None
    preview_dir: Path | None = None
    filmstrip: Path | None = None
    animate: Path | None = None
    trace: bool = False
    trace_html: Path | None = None

    def generate_options(self) -> "GenerateOptions":
        """Returns the options that a request to a system with a superres carries.

        Raises:
            ValueError: the weight of an adapter is no number, or one is named twice.
        """
        previews = any((self.preview_dir, self.filmstrip, self.animate))
        every = self.preview_every if self.preview_every is not None else int(previews)
        options: GenerateOptions = {
            "preview_every": every,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "count": self.count,
            "best_of": self.best_of,
            "adapters": _adapters(self.adapter),
            **self.sampling_options(),
        }
        if self.safety_policy is not None:
            options["safety_policy"] = self.safety_policy
        return options

    def sampling_options(self, client: "MuseClient | None" = None) -> "GenerateOptions":
        """Returns the sampling parameters of a request; see the function `sampling_options`."""
        return sampling_options(
            client, given(self.sampling), steps=self.steps, superres_steps=self.superres_steps
        )


def sampling_options(
    client: "MuseClient | None",
    shared: Mapping[str, Any],
    *,
    steps: int | None = None,
    superres_steps: int | None = None,
) -> "GenerateOptions":
    """Returns the sampling parameters of base and superres, from flags that both share.

    A system without a superres refuses its parameters: there the shared flags are the base's alone.

    Args:
        client: Is asked which stages there are, if there are shared flags; None for a system that
            has them all.
        shared: Sampling parameters of both, by name.
        steps: Of the base; None keeps the server's default.
        superres_steps: Of the super-resolution; None keeps the server's default.

    Raises:
        MuseError: the server cannot be reached, or a value does not fit its field.
    """
    from muse_client import PermissionDenied, sampling

    upper = shared
    if client is not None and shared:
        with suppress(PermissionDenied):  # a policy may forbid the question: then both have them
            if "superres" not in {each.stage for each in client.status().stages}:
                upper = {}
    return {
        "base": sampling(steps=steps, **shared),
        "superres": sampling(steps=superres_steps, **upper),
    }


def _adapters(words: Sequence[str]) -> dict[str, float]:
    """Returns the weight of each adapter, by its name."""
    weights: dict[str, float] = {}
    for word in words:
        name, _, weight = word.partition("=")
        if name in weights:
            raise ValueError(f"adapter: expected each name once, got {name!r} again")
        try:
            weights[name] = float(weight or 1)
        except ValueError as error:
            raise ValueError(
                f"adapter: expected NAME or NAME=WEIGHT, such as fox=0.8, got {word!r}"
            ) from error
    return weights


DEFAULTS = CommandOptions()
