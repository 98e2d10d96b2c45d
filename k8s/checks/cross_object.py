"""All checks that no schema makes, in the order they are reported."""

from k8s.checks import certificates, chips, gangs, network, pods, references, settings
from k8s.checks.objects import Check, Objects
from k8s.checks.rendering import Manifest

CHECKS = [
    each
    for module in (references, certificates, pods, gangs, chips, network, settings)
    for each in vars(module).values()
    if isinstance(each, Check)
]


def mistakes(manifests: list[Manifest]) -> list[str]:
    """Returns what is wrong between the objects of one overlay, one line each."""
    objects = Objects(manifests)
    return [line for check in CHECKS for line in check.lines(objects)]
