"""The error of a picture file that cannot be read."""


class PictureError(Exception):
    """A file that is no picture, or one outside the limits.

    Attributes:
        expected: What the file should have been.
        got: What it is.
        advice: How to correct it; empty where that is obvious.
    """

    def __init__(self, expected: str, got: str, advice: str = "") -> None:
        """Creates the error; its message joins the parts."""
        super().__init__(f"expected {expected}, got {got}" + (f": {advice}" if advice else ""))
        self.expected, self.got, self.advice = expected, got, advice
