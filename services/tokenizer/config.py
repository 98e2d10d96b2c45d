"""The shape of a VQGAN tokenizer."""

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
            With 1 at the low resolutions a token says what is near it and nothing else, so one
            thing has the same tokens wherever it is; the decoder looks around in any case.
        decoder_base_channels: As base_channels, of the decoder (the fine-tuned one is wider).
        decoder_residual_blocks: As residual_blocks, of the decoder.
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

    def __post_init__(self) -> None:
        for name in ("channel_multipliers", "encoder_kernels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        numbers = {name: value for name, value in vars(self).items() if name != "repeat_first"}
        for name, value in numbers.items():
            for number in value if isinstance(value, tuple) else (value,):
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


# Muse, Table 5 and appendix A.2: two residual blocks a resolution, 128 base channels, 8192 codes.
F16_256 = TokenizerConfig(
    image_size=256,
    base_channels=128,
    channel_multipliers=(1, 1, 2, 2, 4),
    residual_blocks=2,
    encoder_kernels=(3, 3, 3, 3, 3),
    decoder_base_channels=128,
    decoder_residual_blocks=2,
    codebook_size=8192,
    code_dim=256,
)

# The high-resolution tokenizer; its decoder is the fine-tuned one (Muse, sections 2.5 and A.2):
# four residual blocks and 256 base channels, encoder and codebook unchanged.
F8_512 = TokenizerConfig(
    image_size=512,
    base_channels=128,
    channel_multipliers=(1, 1, 2, 4),
    residual_blocks=2,
    encoder_kernels=(3, 3, 3, 3),
    decoder_base_channels=256,
    decoder_residual_blocks=4,
    codebook_size=8192,
    code_dim=256,
)

# One shape at both sizes; few channels at full resolution, where a convolution costs most.
DEMO_LOW = TokenizerConfig(
    image_size=64,
    base_channels=16,
    channel_multipliers=(1, 2, 4, 12),
    residual_blocks=1,
    encoder_kernels=(3, 1, 1, 1),
    decoder_base_channels=16,
    decoder_residual_blocks=1,
    codebook_size=1024,
    code_dim=16,
    repeat_first=False,
)

DEMO_HIGH = TokenizerConfig(
    image_size=128,
    base_channels=16,
    channel_multipliers=(1, 2, 4, 12),
    residual_blocks=1,
    encoder_kernels=(3, 1, 1, 1),
    decoder_base_channels=16,
    decoder_residual_blocks=1,
    codebook_size=1024,
    code_dim=16,
    repeat_first=False,
)

# The low grid is the paper's own, 16 x 16; the high one has twice its tokens along a side.
DEMO256_LOW = TokenizerConfig(
    image_size=128,
    base_channels=16,
    channel_multipliers=(1, 2, 4, 12),
    residual_blocks=1,
    encoder_kernels=(3, 1, 1, 1),
    decoder_base_channels=16,
    decoder_residual_blocks=1,
    codebook_size=2048,
    code_dim=16,
)

DEMO256_HIGH = TokenizerConfig(
    image_size=256,
    base_channels=16,
    channel_multipliers=(1, 2, 4, 12),
    residual_blocks=1,
    encoder_kernels=(3, 1, 1, 1),
    decoder_base_channels=16,
    decoder_residual_blocks=1,
    codebook_size=2048,
    code_dim=16,
)

TINY_LOW = TokenizerConfig(
    image_size=16,
    base_channels=8,
    channel_multipliers=(1, 2, 2),
    residual_blocks=1,
    encoder_kernels=(3, 3, 1),
    decoder_base_channels=8,
    decoder_residual_blocks=1,
    codebook_size=32,
    code_dim=8,
)

TINY_HIGH = TokenizerConfig(
    image_size=32,
    base_channels=8,
    channel_multipliers=(1, 2, 2),
    residual_blocks=1,
    encoder_kernels=(3, 3, 1),
    decoder_base_channels=8,
    decoder_residual_blocks=1,
    codebook_size=32,
    code_dim=8,
)
