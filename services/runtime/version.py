"""The version of the project, as the installed package states it."""

from importlib.metadata import version


def package_version() -> str:
    """Returns the version of the running package."""
    return version("muse")
