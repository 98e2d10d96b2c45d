"""All checks that no schema makes, in the order they are reported."""

from importlib import import_module

from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest
from k8s.checks.rules import CHECKS

for _module in ("references", "pods", "jobs", "chips", "network", "settings"):  # this order
    import_module(f"k8s.checks.{_module}")


def mistakes(manifests: list[Manifest]) -> list[str]:
    """Returns what is wrong between the objects of one overlay, one line each."""
    objects = Objects(manifests)
    return [message for check in CHECKS for message in check(objects)]
