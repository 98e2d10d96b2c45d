"""The list of checks: every function with one of these decorators is in it, in order."""

from collections.abc import Callable, Iterator

from k8s.checks.objects import Objects, Workload

Check = Callable[[Objects], Iterator[str]]
CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Adds a check of an overlay's objects, which yields a line for each mistake."""
    CHECKS.append(function)
    return function


def check_workloads(
    *kinds: str, component: str = ""
) -> Callable[[Callable[[Workload], Iterator[str]]], Check]:
    """Adds a check of each workload of some kinds, or of all; its title begins each line."""

    def add(function: Callable[[Workload], Iterator[str]]) -> Check:
        def lines(objects: Objects) -> Iterator[str]:
            for each in objects.workloads(*kinds):
                if component in ("", each.component):
                    yield from (f"{each.title}: {line}" for line in function(each))

        return check(lines)

    return add
