"""Preset muse-632m: muse-3b with the paper's smaller base transformer."""

from dataclasses import replace

from services.base.config import BaseConfig
from services.presets import muse_3b

PRESET = replace(
    muse_3b.PRESET,
    name="muse-632m",
    # Muse-632M: the paper gives no shape; 36 layers of 1024 come to 0.63 B.
    base=BaseConfig(
        grid=16,
        vocabulary=8192,
        hidden=1024,
        layers=36,
        heads=16,
        mlp=4096,
        text_hidden=4096,
        text_length=128,
    ),
)
