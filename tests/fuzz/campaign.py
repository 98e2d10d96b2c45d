"""Fuzzes one target, guided by the lines that a case reaches: `python -m tests.fuzz.campaign NAME`.

Further arguments are libFuzzer's. It ends at the first fault, and writes the case into the folder
that the repository keeps.

Source: https://llvm.org/docs/LibFuzzer.html; https://github.com/google/atheris.
"""

import sys

import atheris

from tests.fuzz import registry

TIMEOUT_S, MEMORY_MIB = 20, 3072  # of one case, and of the process
READERS = ("services", "PIL", "jwt", "minisign", "safetensors", "tomllib")  # whose branches guide


def main(name: str, *flags: str) -> None:
    """Fuzzes until a flag, such as -runs or -max_total_time, says that it is enough."""
    with atheris.instrument_imports(include=list(READERS)):
        target = registry.load(name)
    found, kept = registry.found(name), registry.kept(name)
    for folder in (found, kept):
        folder.mkdir(parents=True, exist_ok=True)
    for seed, content in target.seeds():
        (found / f"seed-{seed}").write_bytes(content)
    arguments = [
        name,
        f"-max_len={target.MAX_BYTES}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={kept}/",
        "-report_slow_units=1000",  # -timeout is what ends a slow case
        "-print_final_stats=1",
        *flags,
        str(found),  # what is new is written into the first
        str(kept),
    ]
    with target.opened() as check:
        atheris.Setup(arguments, check)
        atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main(*sys.argv[1:])
