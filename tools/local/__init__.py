"""`muse up`: runs the pods of the overlay k8s/overlays/local-cpu as processes of this machine.

The overlay is rendered into this package (local-cpu.json, by `make local-overlay`), so that kubectl
and kustomize are not needed. A pod is one process. Its manifest translates as follows:

image       This interpreter with its packages, as `python`.
command     Unchanged, with its arguments.
address     The first 127.0.9.N where the container's ports are free, so that stacks do not collide.
            Where loopback has one address only (macOS), 127.0.0.1 and free ports; values of
            variables named ..._PORT, probes and Services follow.
0.0.0.0, :: The pod's own address.
Services    `dns:///base:50053`, also without `dns:///` or with the namespace, becomes the addresses
            of all its pods, separated by commas. Services listen on 127.0.0.1, too, as with
            `kubectl port-forward`: the orchestrator on --base-port, the stages at the overlay's
            offsets from it, the gateway on --gateway-port; connections go to ready pods in turns.
            The gateway calls the orchestrator there.
volumes     The claim "checkpoints" becomes --checkpoints, "compiled" the user's folder of compiled
            programs, an emptyDir a folder of the pod, removed at the end; at /tmp it is TMPDIR,
            too. Mounted paths in values become these folders. Without a claim, compiled programs
            are kept in the user's folder all the same.
env         Fields of the pod (name, namespace, node, address) and $(NAME) are resolved. Variables
            of the manifest override the caller's, except JAX_... and OTEL_....
probes      gRPC or HTTP, with the manifest's names, periods, thresholds and timeouts. Liveness and
            readiness probes start after the startup probe. Until a container was ready, probes run
            5 times a second; the startup time limit does not change.
restarts    A container that ends, or whose liveness or startup probe fails, is restarted: at once,
            then after 10 s, doubling to 300 s at most; the delay resets after 10 min of running. If
            a pod was never ready, the runner ends with the pod's last log line: at its first end if
            it exited by itself (a wrong setting), else at its third.
the end     All pods end together, as when a namespace is deleted: preStop sleep, SIGTERM, and
            SIGKILL after terminationGracePeriodSeconds (at least 2 s after SIGTERM).

Resources, security contexts, network policies and read-only mounts are not enforced. `fields.py`
lists the fields that are understood and those without effect; any other field is an error.
"""

from tools.local.folders import check_checkpoints
from tools.local.placement import parse_replicas, stage_flags
from tools.local.pods import Restarts
from tools.local.probes import serving
from tools.local.runner import Runner, local_stack

__all__ = [
    "Restarts",
    "Runner",
    "check_checkpoints",
    "local_stack",
    "parse_replicas",
    "serving",
    "stage_flags",
]
