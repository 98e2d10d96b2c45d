"""Checks of the rendered manifests: schemas, and what spans several objects."""
