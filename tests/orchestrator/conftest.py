"""An orchestrator over four small stages."""

from tests.small_stages import house, started

__all__ = ["house", "started"]
