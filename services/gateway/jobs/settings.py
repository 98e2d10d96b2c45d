"""Command-line settings of jobs and their webhooks."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from services.gateway.jobs.webhooks.addresses import AllowedHosts
from services.runtime.server.settings import ListeningSettings

SQLITE, POSTGRESQL = "sqlite", "postgresql+psycopg"


@dataclass(frozen=True, kw_only=True)
class JobSettings(ListeningSettings):
    """Settings of jobs, which are off without a database, and of their webhooks.

    Attributes:
        jobs_database: Database of jobs: sqlite:////folder/jobs.db for gateways of one machine,
            postgresql+psycopg://user:password@host/name for several machines. Without one there
            are no jobs.
        jobs_pictures: Folder of the pictures of jobs, or a URL of fsspec such as s3://bucket/jobs,
            which all gateways of a database share; by default beside a file of SQLite.
        jobs_key_file: File of the keys (Fernet), one a line, by which the credentials of waiting
            jobs are encrypted in the database: the first encrypts, all decrypt. By default jobs.key
            beside a file of SQLite, made at the first start.
        jobs_running: Jobs that this gateway has in progress at once.
        jobs_queued: Jobs that may wait; further ones are refused.
        jobs_queued_per_caller: Jobs of one caller that may wait; further ones are refused.
        jobs_kept_s: Seconds after its end during which a job and its pictures are kept.
        jobs_lease_s: Seconds after which another gateway takes up a job whose gateway is silent.
        jobs_retry_s: Seconds from its arrival during which a job is tried again if the servers have
            no room for it, or cannot be reached.
        webhook_secret_file: File of the secrets that sign webhooks, one a line, as Standard
            Webhooks writes them: whsec_ and 24 to 64 bytes in base64. Without one no job has a
            webhook.
        webhook_allowed: Hosts and networks, such as 10.0.0.0/8, that webhooks may reach beside
            public addresses, also by http://.
        webhook_retry_s: Seconds between the first two attempts to deliver a webhook; each further
            pause is twice the one before.
        webhook_attempts: Attempts to deliver a webhook.
    """

    jobs_database: str = ""
    jobs_pictures: str = ""
    jobs_key_file: Path | None = None
    jobs_running: int = 4
    jobs_queued: int = 1000
    jobs_queued_per_caller: int = 100
    jobs_kept_s: float = 86_400.0
    jobs_lease_s: float = 30.0
    jobs_retry_s: float = 3600.0
    webhook_secret_file: Path | None = None
    webhook_allowed: tuple[str, ...] = ()
    webhook_retry_s: float = 5.0
    webhook_attempts: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least_one(
            "jobs_running", "jobs_queued", "jobs_queued_per_caller", "webhook_attempts"
        )
        self._check_above_zero("jobs_kept_s", "jobs_lease_s", "jobs_retry_s", "webhook_retry_s")
        AllowedHosts(self.webhook_allowed)
        beside = ("jobs_pictures", "jobs_key_file", "webhook_secret_file")
        if not self.jobs_database:
            for name in beside:
                if getattr(self, name):
                    raise ValueError(f"jobs_database: expected a database beside {name}, got none")
            return
        if self.database_url.drivername == POSTGRESQL:
            for name in beside[:2]:
                if not getattr(self, name):
                    raise ValueError(
                        f"{name}: expected one that every gateway of {POSTGRESQL}:// has, got none"
                    )

    @property
    def database_url(self) -> URL:
        """The database of jobs.

        Raises:
            ValueError: it is another kind of database, or SQLite without a file.
        """
        expected = f"{SQLITE}:////folder/jobs.db or {POSTGRESQL}://user:password@host/name"
        try:
            url = make_url(self.jobs_database)
        except ArgumentError:  # its text may hold a password
            raise ValueError(f"jobs_database: expected {expected}, got no URL") from None
        if url.drivername not in (SQLITE, POSTGRESQL):
            raise ValueError(f"jobs_database: expected {expected}, got {url.drivername}://")
        if url.drivername == SQLITE and url.database in (None, "", ":memory:"):
            raise ValueError(f"jobs_database: expected {expected}, got {SQLITE} without a file")
        return url

    @property
    def pictures_url(self) -> str:
        """Folder or URL of the pictures."""
        return self.jobs_pictures or str(self._beside_database("pictures"))

    @property
    def key_file(self) -> Path:
        """File of the keys of credentials."""
        return self.jobs_key_file or self._beside_database("jobs.key")

    def _beside_database(self, name: str) -> Path:
        return Path(self.database_url.database or "").absolute().parent / name
