"""The version of the installed package, which client/muse_client/version.py defines."""

from importlib.metadata import version


def package_version() -> str:
    """Returns the version of the running package."""
    return version("muse")
