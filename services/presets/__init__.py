"""Presets: named configurations of the whole system, one file each. Imports no JAX."""

from services.presets import demo, demo256, muse_3b, muse_632m, tiny
from services.presets.definition import Preset as Preset

PRESETS = {each.PRESET.name: each.PRESET for each in (muse_3b, muse_632m, demo, demo256, tiny)}


def preset(name: str) -> Preset:
    """Returns the preset of a name, such as "muse-3b".

    Raises:
        ValueError: no preset has that name.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
