"""Errors of reading a checkpoint.

They have a module of their own because the orchestrator handles them and does not install
safetensors, which reading a checkpoint needs.
"""


class CheckpointError(Exception):
    """A checkpoint cannot be served; the message says what was expected and what was found."""


class CheckpointNotFound(CheckpointError):
    """The folder holds no checkpoint."""


class CheckpointMismatch(CheckpointError):
    """The checkpoint has another stage, shape or format."""


class CheckpointDamaged(CheckpointError):
    """The weights are not those that were written, or are no numbers."""


class GoldenMismatch(CheckpointError):
    """This machine computes something else with the weights than the one that wrote them."""


class CheckpointUntrusted(CheckpointError):
    """The files of the checkpoint are not those that the trusted key signed."""
