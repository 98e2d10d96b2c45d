"""An orchestrator over four small stages."""

from tests.small_stages import house

__all__ = ["house"]
