"""Preset muse-632m: muse-3b with the paper's smaller base transformer."""

from dataclasses import replace

from services.presets import muse_3b

PRESET = replace(
    muse_3b.PRESET,
    name="muse-632m",
    # Muse-632M: the paper gives no shape; 36 layers of 1024 come to 0.63 B.
    base=replace(muse_3b.PRESET.base, hidden=1024, layers=36, mlp=4096),
)
