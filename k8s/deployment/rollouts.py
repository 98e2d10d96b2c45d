"""The state of a Deployment's roll-out, in words."""

from k8s.checks.rendering import Manifest


def rollout_state(deployment: Manifest) -> str:
    """Returns what a Deployment's roll-out waits for; "" once it is complete.

    Source: `kubectl rollout status`, which compares the same numbers.
    """
    metadata, status = deployment["metadata"], deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        state = "its controller has not seen the change"
    elif updated < wanted:
        state = f"{updated} of {wanted} new pods are made"
    elif status.get("replicas", 0) > updated:
        state = f"{status['replicas'] - updated} old pods are still to end"
    elif available < updated:
        state = f"{available} of {updated} pods are ready"
    else:
        return ""
    late = any(
        each["type"] == "Progressing" and each.get("reason") == "ProgressDeadlineExceeded"
        for each in status.get("conditions", ())
    )
    return f"{state}, and its progress deadline has passed" if late else state
