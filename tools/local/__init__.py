"""`muse up`: the overlay that is deployed, k8s/overlays/local-cpu, run on this machine.

The overlay is rendered into this package (local-cpu.json, by `make local-overlay`), for a newcomer
has neither kubectl nor kustomize. Every pod is a process. What its manifest says becomes

image       This interpreter, with its packages, as `python`. Images only name what is installed.
command     As it is, with its arguments.
address     The first 127.0.9.N where the container's ports are free, so that two stacks never meet.
            Where loopback has one address only (macOS), 127.0.0.1 and free ports: values of
            variables called ..._PORT, probes and Services follow.
0.0.0.0     The pod's own address.
Services    `dns:///base:50053`, and the same without `dns:///` or with the namespace, is the
            addresses of all its pods, separated by commas. Services are at 127.0.0.1 too, as
            `kubectl port-forward` has it: the orchestrator at --base-port, the others as far from
            it as in the overlay; connections go to ready pods in turns.
volumes     The claim "checkpoints" is --checkpoints, "compiled" the user's folder of compiled
            programs, an emptyDir a folder of the pod's own, removed at the end; that at /tmp is
            TMPDIR as well. Mounted paths in values become these folders. Programs are kept in the
            user's folder without a claim, too.
env         Fields of the pod (its name, namespace, node and address) and $(NAME) are resolved. The
            caller's variables are there as well; the manifest's go before them, except before
            those that say how to compute and where to send spans: JAX_... and OTEL_....
probes      gRPC, with the manifest's names, periods, thresholds and timeouts. The startup probe
            goes before the others. Until a container was ready, it is asked 5 times a second rather
            than once a period; the time it has stays the same.
restarts    A container that ends, or whose liveness or startup probe fails for good, is started
            again: at once, then after 10 s, twice as long each time, 300 s at most, and anew once
            it ran for 10 min. A pod that was never ready ends everything with its last words: the
            first time if it ended by itself, as it does when a setting is wrong, else the third.
the end     Of all pods at the same time, as when a namespace is deleted: preStop sleeps, SIGTERM,
            and SIGKILL where terminationGracePeriodSeconds are over (2 s at least after SIGTERM).

Not enforced: resources, security contexts, network policies, read-only mounts; claims, volumes,
accounts, budgets and strategies have no effect. `fields.py` lists all that is understood and all
that has no effect. Anything else is an error that names the field.
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
