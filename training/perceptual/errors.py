"""The error of LPIPS files."""


class LpipsError(ValueError):
    """An LPIPS file is missing or wrong; the message says what was expected and what came."""
