"""Seconds until the whole stack serves, with nothing compiled yet and with everything.

`python -m benchmarks.startup` (`--rounds 1 --checkpoints FOLDER` for another or smaller stack).
The five servers start together, as `muse up` starts them, so they share the machine's cores. Each
round starts them twice: with an empty folder of compiled programs, then with what that left in it.
A server's time ends when it is ready, which it is asked 5 times a second; the orchestrator's when
all stages are.
"""

import os
import tempfile
from pathlib import Path

from cyclopts import App

from benchmarks.measuring import Spread, conditions
from tools.local import local_stack

app = App(help=__doc__)


def seconds_to_serve(checkpoints: Path, cache: Path, log: Path) -> dict[str, float]:
    """Starts all servers, waits until they serve and stops them.

    Args:
        checkpoints: Folder with the checkpoint of every stage.
        cache: Folder of compiled programs.
        log: File the servers log to.

    Returns:
        Seconds from the start until each server was ready, by name.

    Raises:
        FileNotFoundError: a stage has no checkpoint.
        RuntimeError: a server died.
    """
    os.environ["MUSE_COMPILATION_CACHE"] = str(cache)  # which the runner hands to the servers
    with log.open("w") as lines, local_stack(checkpoints, lines) as stack:
        return {
            pod.local.deployment.name: pod.ready_after_s
            for pod in stack.pods
            if pod.ready_after_s is not None
        }


@app.default
def main(*, checkpoints: Path = Path("checkpoints/demo"), rounds: int = 3) -> None:
    """Prints the seconds of every server, cold and warm, and their ratio.

    Parameters
    ----------
    checkpoints
        Folder with the checkpoint of every stage.
    rounds
        Pairs of starts, cold and warm.
    """
    print(conditions("jax"))
    print(f"{checkpoints}, five servers started together; median (min-max) of {rounds}")
    runs: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache, log = Path(folder, "compiled"), Path(folder, "log")
            for kind in runs:
                runs[kind].append(seconds_to_serve(checkpoints, cache, log))
            programs = [file for file in cache.rglob("*") if file.name.endswith("-cache")]
            kept = len(programs), sum(file.stat().st_size for file in programs)
    print(f"{'':14}{'empty cache, s':24}{'full cache, s':24}ratio")
    for name in sorted(
        runs["cold"][0], key=lambda each: each == "orchestrator"
    ):  # it waits for the others
        cold, warm = (Spread([run[name] for run in runs[kind]]) for kind in ("cold", "warm"))
        print(f"{name:14}{f'{cold:.1f}':24}{f'{warm:.1f}':24}{warm.median / cold.median:.2f}")
    print(f"the cache holds {kept[0]} programs, {kept[1] / 2**20:.1f} MiB")


if __name__ == "__main__":
    app()
