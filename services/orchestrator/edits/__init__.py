"""Editing pictures: reading what callers send, and painting what they ask for over it."""

from services.orchestrator.edits.registry import painter_of
from services.orchestrator.edits.sources import Source, drop_files, read_source, result_pixels

__all__ = ["Source", "drop_files", "painter_of", "read_source", "result_pixels"]
