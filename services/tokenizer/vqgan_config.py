"""Configuration of a VQGAN as others train and publish it."""

from dataclasses import dataclass

GROUPS = 32  # of every group normalisation


@dataclass(frozen=True, kw_only=True)
class VqganConfig:
    """A VQGAN with group normalisation and zero padding (Esser et al. 2021, appendix A, Table 7).

    Attributes:
        image_size: Side in pixels that is served; any multiple of `factor` works.
        stem_channels: Channels of the encoder's first convolution.
        channels: Channels of each resolution, full resolution first.
        residual_blocks: Residual blocks a resolution of the encoder.
        decoder_residual_blocks: Residual blocks a resolution of the decoder.
        attention_levels: Resolutions, 0 the full one, that have attention after each residual
            block.
        middle_attention: Whether there is attention between the two residual blocks in the middle.
        latent_channels: Channels between encoder and codebook, and between codebook and decoder.
        codebook_size: Number of codes.
        code_dim: Width of a code.
        l2_normalised_codes: Whether codes and what is quantised have length 1 (Yu et al. 2022,
            "Vector-quantized Image Modeling with Improved VQGAN", section 3.2).
        signed_pixels: Whether the network reads and draws pixels in [-1, 1], not in [0, 1].
    """

    image_size: int
    stem_channels: int
    channels: tuple[int, ...]
    residual_blocks: int
    decoder_residual_blocks: int
    attention_levels: tuple[int, ...]
    middle_attention: bool
    latent_channels: int
    codebook_size: int
    code_dim: int
    l2_normalised_codes: bool
    signed_pixels: bool

    def __post_init__(self) -> None:
        for name in ("channels", "attention_levels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            least = 0 if name == "attention_levels" else 1
            if not isinstance(value, bool) and not all(number >= least for number in numbers):
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not self.channels or any(
            width % GROUPS for width in (self.stem_channels, *self.channels)
        ):
            raise ValueError(
                f"stem_channels and channels must be multiples of {GROUPS}, the groups of a "
                f"normalisation, got {self.stem_channels} and {self.channels}"
            )
        if not set(self.attention_levels) <= set(range(len(self.channels))):
            raise ValueError(
                f"attention_levels must be less than {len(self.channels)}, the number of "
                f"resolutions, got {self.attention_levels}"
            )
        if self.image_size % self.factor:
            raise ValueError(
                f"image_size must be a multiple of the factor {self.factor}, got {self.image_size}"
            )

    @property
    def factor(self) -> int:
        """Pixels to a token along one side (the f of f8, f16)."""
        return int(2 ** (len(self.channels) - 1))

    @property
    def grid(self) -> int:
        """Tokens along one side at image_size."""
        return self.image_size // self.factor
