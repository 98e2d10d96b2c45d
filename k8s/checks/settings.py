"""The servers' own settings: does each MUSE_ variable name one that its server has?"""

from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module

from k8s.checks.objects import Workload, check_workloads, environment

PREFIX = "MUSE_"
PORTS = (f"{PREFIX}PORT", f"{PREFIX}METRICS_PORT", f"{PREFIX}HEALTH_PORT")


@check_workloads()
def variables_are_settings(each: Workload) -> Iterator[str]:
    """A server ignores a variable it does not know: a misspelt one is the default, unseen."""
    for box in each.containers:
        module = next((word for word in box["command"] if word.startswith("services.")), None)
        if module is None:
            continue
        known = {field.name for field in fields(import_module(f"{module}.__main__").Settings)}
        for name in environment(box):
            if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in known:
                yield f"{module} has no setting {name}"


@check_workloads()
def ports_are_the_servers(each: Workload) -> Iterator[str]:
    """What is said to the server and what is said to Kubernetes is the same port."""
    for box in each.containers:
        listed = {port["containerPort"] for port in box.get("ports", ())}
        for name in PORTS:
            said = environment(box).get(name)
            if said and listed and int(said) not in listed:
                yield f"listens on {name} {said}, which is not among its ports"
