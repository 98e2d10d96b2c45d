"""The flags and variables by which commands speak TLS."""

import asyncio
from functools import partial
from pathlib import Path

from tests.authority import Authority
from tests.tls_orchestrator import serving
from tests.tools.cli.running import check_refused, muse


async def test_status_is_asked_over_tls_by_flags_and_by_variables(tmp_path: Path) -> None:
    authority = Authority()
    ca = authority.write(tmp_path)
    cert, key = authority.issue("client").write(tmp_path, "client")
    async with serving(tmp_path, authority.issue("orchestrator"), tls_ca=ca) as address:
        run = partial(asyncio.to_thread, muse, "status", "--json", "--server", address)
        flags = await run(
            *(f"--tls-ca={ca}", f"--tls-cert={cert}", f"--tls-key={key}"),
            "--tls-server-name=orchestrator",
            cwd=tmp_path,
        )
        variables = {"CA": str(ca), "CERT": str(cert), "KEY": str(key)}
        variables["SERVER_NAME"] = "orchestrator"
        by_name = {f"MUSE_TLS_{name}": value for name, value in variables.items()}
        environment = await run(cwd=tmp_path, variables=by_name)
        by_address = await run(cwd=tmp_path, variables={**by_name, "MUSE_TLS_SERVER_NAME": ""})
        plain = await run(cwd=tmp_path)

    for ended in (flags, environment):
        assert (ended.returncode, ended.stderr) == (0, "")
        assert '"stages": []' in ended.stdout
    check_refused(by_address, f"muse: no orchestrator answers at {address}: its certificate is of")
    check_refused(plain, f"muse: no orchestrator answers at {address}: it closed the connection")


def test_half_of_a_pair_is_refused_by_name(tmp_path: Path) -> None:
    ended = muse("status", "--tls-cert=a.crt", cwd=tmp_path)

    check_refused(ended, "muse: tls key: expected a file beside that of the cert, got none")


def test_a_file_that_is_not_there_is_named_before_anything_is_started(tmp_path: Path) -> None:
    ended = muse("generate", "a fox", "--tls-ca=away.crt", cwd=tmp_path)

    check_refused(ended, "muse: tls ca: expected a file in PEM, got away.crt, which cannot be read")
