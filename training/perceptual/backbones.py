"""The convolutional networks that LPIPS compares pictures with: what their weights do not say.

Widths and kernel sizes follow from the arrays; strides, pooling and compared layers are here.

Source: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks" (AlexNet
as torchvision has it); Simonyan and Zisserman 2015, "Very Deep Convolutional Networks", table 1,
column D (VGG16).
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A stack of padded convolutions, each followed by a ReLU.

    Attributes:
        name: "alex" or "vgg16", as LPIPS names them.
        convolutions: Number of convolutions.
        stem_stride: Stride of the first convolution; all others have stride 1.
        stem_padding: Zeros around the picture before the first convolution. Every other
            convolution keeps its height and width.
        pool_window: Side of a max-pooling window; windows are 2 apart.
        pooled: Convolutions whose input is max-pooled.
        compared: Convolutions whose rectified outputs LPIPS compares.
        smallest_px: Side of the smallest picture that no pooling shrinks to nothing.
    """

    name: str
    convolutions: int
    stem_stride: int
    stem_padding: int
    pool_window: int
    pooled: tuple[int, ...]
    compared: tuple[int, ...]
    smallest_px: int


ALEX = Backbone(
    name="alex",
    convolutions=5,
    stem_stride=4,
    stem_padding=2,
    pool_window=3,
    pooled=(1, 2),
    compared=(0, 1, 2, 3, 4),
    smallest_px=31,
)
VGG16 = Backbone(
    name="vgg16",
    convolutions=13,
    stem_stride=1,
    stem_padding=1,
    pool_window=2,
    pooled=(2, 4, 7, 10),
    compared=(1, 3, 6, 9, 12),
    smallest_px=16,
)
BACKBONES = {backbone.name: backbone for backbone in (ALEX, VGG16)}
