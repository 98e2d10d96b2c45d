"""What makes a function a check of the manifests; `cross_object` runs all that there are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from k8s.checks.objects import Objects, Workload


@dataclass(frozen=True)
class Check:
    """A check, which yields a line for each mistake; a decorator of such a function, too."""

    lines: Callable[[Objects], Iterator[str]]


def check_workloads(
    *kinds: str, component: str = ""
) -> Callable[[Callable[[Workload], Iterator[str]]], Check]:
    """Makes a check of each workload of some kinds, or of all; its title begins each line."""

    def make(function: Callable[[Workload], Iterator[str]]) -> Check:
        def lines(objects: Objects) -> Iterator[str]:
            for each in objects.workloads(*kinds):
                if component in ("", each.component):
                    yield from (f"{each.title}: {line}" for line in function(each))

        return Check(lines)

    return make
