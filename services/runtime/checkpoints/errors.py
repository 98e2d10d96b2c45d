"""What a checkpoint can be refused for.

Apart from what reads one: the orchestrator, which has none, does not install safetensors.
"""


class CheckpointError(Exception):
    """A checkpoint that cannot be served; the message says what was expected and what came."""


class CheckpointNotFound(CheckpointError):
    """No checkpoint lies where one was asked for."""


class CheckpointMismatch(CheckpointError):
    """A checkpoint is there, but of another stage, shape or format."""
