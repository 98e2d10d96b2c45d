"""S3 on this machine, where a server of it is installed."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def s3_service() -> Iterator[None]:
    """Serves S3 on this machine, and has s3fs find it there."""
    pytest.importorskip("s3fs", reason="needs s3fs: pip install -e '.[s3]'")
    server = pytest.importorskip("moto.server", reason="needs moto, flask and flask-cors")
    service = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    host, port = service.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        yield
    service.stop()
