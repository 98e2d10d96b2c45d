"""Configuration of a VQGAN tokenizer."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A fully convolutional VQGAN (Esser et al. 2021; Muse, section 2.2 and Table 5).

    Attributes:
        image_size: Side in pixels it was trained for; any multiple of `factor` works.
        base_channels: Channels at full resolution.
        channel_multipliers: Channels of each resolution over base_channels, full resolution first.
        residual_blocks: Residual blocks a resolution.
        encoder_kernels: Side of the encoder's residual convolutions at each resolution, 3 or 1.
            With 1 at the low resolutions a token depends on few pixels, so an object has the same
            tokens wherever it is; the decoder's kernels are always 3.
        encoder_overlaps: Whether the encoder's stem and the layers that halve the resolution look
            past a token's own pixels, as VQGAN's do: 3 x 3. If not, they are 1 x 1 and 2 x 2, and
            with encoder_kernels of 1 the same f x f pixels have the same token beside whatever.
        decoder_base_channels: Channels of the decoder at full resolution (the fine-tuned decoder is
            wider).
        decoder_residual_blocks: Residual blocks a resolution of the decoder.
        repeat_first: Whether the decoder repeats pixels before the convolution that widens a
            resolution, as VQGAN does; only the 128 px demo checkpoint convolves before.
        codebook_size: Number of codes.
        code_dim: Width of a code.
    """

    image_size: int
    base_channels: int
    channel_multipliers: tuple[int, ...]
    residual_blocks: int
    encoder_kernels: tuple[int, ...]
    decoder_base_channels: int
    decoder_residual_blocks: int
    codebook_size: int
    code_dim: int
    repeat_first: bool = True
    encoder_overlaps: bool = True

    def __post_init__(self) -> None:
        for name in ("channel_multipliers", "encoder_kernels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, value in vars(self).items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, bool):
                    continue
                if number < 1:
                    raise ValueError(f"{name} must be at least 1, got {value}")
        if len(self.encoder_kernels) != len(self.channel_multipliers):
            raise ValueError(
                f"encoder_kernels must have one kernel a resolution, "
                f"{len(self.channel_multipliers)}, got {self.encoder_kernels}"
            )
        if not set(self.encoder_kernels) <= {1, 3}:
            raise ValueError(f"encoder_kernels must be 1 or 3 each, got {self.encoder_kernels}")
        if self.image_size % self.factor:
            raise ValueError(
                f"image_size must be a multiple of the factor {self.factor}, got {self.image_size}"
            )

    @property
    def factor(self) -> int:
        """Pixels to a token along one side (the f of f8, f16)."""
        return int(2 ** (len(self.channel_multipliers) - 1))

    @property
    def grid(self) -> int:
        """Tokens along one side at image_size."""
        return self.image_size // self.factor
