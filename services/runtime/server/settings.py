"""Command-line settings of servers."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of every server.

    Attributes:
        host: Address to listen on. Only this machine by default: the wire is not encrypted.
        port: Port to listen on; 0 takes a free one.
        grace_s: Seconds that open calls may take to end after SIGTERM.
        max_message_mib: Size of the largest message, in MiB.
        log_level: The least severe level that is logged.
        metrics_port: Port of the endpoint that Prometheus scrapes; 0 takes a free one. No endpoint
            by default.
    """

    host: str = "127.0.0.1"
    port: int = 0
    grace_s: float = 30.0
    max_message_mib: int = 32
    log_level: str = "INFO"
    metrics_port: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: expected 0 to 65535, got {self.port}")
        if self.metrics_port is not None and not 0 <= self.metrics_port <= 65535:
            raise ValueError(f"metrics_port: expected 0 to 65535, got {self.metrics_port}")
        if self.metrics_port and self.metrics_port == self.port:
            raise ValueError(
                f"metrics_port: expected another number than port, got {self.port} for both"
            )
        if self.max_message_mib < 1:
            raise ValueError(f"max_message_mib: expected at least 1, got {self.max_message_mib}")
        if not 0 <= self.grace_s < float("inf"):
            raise ValueError(f"grace_s: expected at least 0, got {self.grace_s}")


@dataclass(frozen=True, kw_only=True)
class StageSettings(ServerSettings):
    """Settings of a server that computes.

    Attributes:
        max_batch_size: Requests computed together; the number of slots of base and superres.
        max_queued: Requests that may wait; further ones are refused. In base and superres one
            caller may fill half of the queue, so that others find room.
        compilation_cache: Folder that keeps compiled programs, so that the next start is fast. A
            read-only folder is read and not written.
        compile_only: Compile everything into compilation_cache, then end instead of serving.
    """

    max_batch_size: int = 8
    max_queued: int = 64
    compilation_cache: Path | None = None
    compile_only: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_batch_size", "max_queued"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.compile_only and self.compilation_cache is None:
            raise ValueError("compile_only: expected a compilation_cache to compile into, got none")


@dataclass(frozen=True, kw_only=True)
class BatchedServerSettings(StageSettings):
    """Settings of a server that batches whole requests.

    Attributes:
        max_wait_ms: Milliseconds a request waits for others while the device is free.
    """

    max_wait_ms: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.max_wait_ms < float("inf"):
            raise ValueError(f"max_wait_ms: expected at least 0, got {self.max_wait_ms}")
