"""One object names another: is it there, and is it what the name says?"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from k8s.checks.objects import CLUSTER_WIDE, Objects, environment, selects, title
from k8s.checks.quantities import amount

LONGEST_PORT_NAME = 15  # RFC 6335, which Kubernetes holds ports' names to
ADDRESS = "dns:///"


def no_object_is_there_twice(objects: Objects) -> Iterator[str]:
    """A second object of the same name replaces the first, unseen."""
    for name, count in Counter(title(each) for each in objects.all).items():
        if count > 1:
            yield f"{name}: is there {count} times"


def all_are_in_the_overlays_namespace(objects: Objects) -> Iterator[str]:
    """An object without a namespace lands in whichever one kubectl points to."""
    names = [each["metadata"]["name"] for each in objects.of("Namespace")]
    for each in objects.all:
        if each["kind"] in CLUSTER_WIDE:
            continue
        namespace = each["metadata"].get("namespace")
        if namespace not in names:
            yield f"{title(each)}: is in namespace {namespace!r}, expected one of {names}"


def selectors_select_their_own_pods(objects: Objects) -> Iterator[str]:
    """The API server refuses a Deployment that would not find its pods."""
    for each in objects.workloads():
        selector = each.spec.get("selector")
        if selector is not None and not selects(selector, each.labels):
            yield f"{each.title}: its selector does not select its own pods' labels"
        for spread in each.pod.get("topologySpreadConstraints", ()):
            if not selects(spread["labelSelector"], each.labels):
                yield f"{each.title}: a topologySpreadConstraint does not count its own pods"


def deployments_do_not_share_pods(objects: Objects) -> Iterator[str]:
    """Two Deployments that select the same pods fight over them."""
    for each in objects.of("Deployment"):
        others = [
            other.title
            for other in objects.selected(each["spec"]["selector"])
            if other.title != title(each)
        ]
        if others:
            yield f"{title(each)}: its selector also selects the pods of {', '.join(others)}"


def services_reach_a_port(objects: Objects) -> Iterator[str]:
    """A Service whose selector or target is wrong has no endpoints, and nothing says so."""
    for service in objects.of("Service"):
        found = objects.selected({"matchLabels": service["spec"].get("selector", {})})
        if not found:
            yield f"{title(service)}: selects no pods"
        for each in found:
            ports = [port for box in each.containers for port in box.get("ports", ())]
            known = {port.get("name") for port in ports} | {port["containerPort"] for port in ports}
            for port in service["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                if target not in known:
                    yield f"{title(service)}: {each.title} has no port {target!r}"
                numbers = {port.get("name"): port["containerPort"] for port in ports}
                number = numbers.get(target, target)
                if service["spec"].get("clusterIP") == "None" and number != port["port"]:
                    yield (
                        f"{title(service)}: is headless, so callers reach port {port['port']} of "
                        f"the pod itself, but it listens on {number}"
                    )


def port_names_are_short(objects: Objects) -> Iterator[str]:
    """A port's name has at most 15 characters, which the schema does not say."""
    for each in objects.workloads():
        for port in (port for box in each.containers for port in box.get("ports", ())):
            if len(port.get("name", "")) > LONGEST_PORT_NAME:
                yield f"{each.title}: port name {port['name']!r} has more than 15 characters"


def budgets_can_be_kept(objects: Objects) -> Iterator[str]:
    """A budget that allows no eviction blocks every node upgrade."""
    for budget in objects.of("PodDisruptionBudget"):
        spec, name = budget["spec"], title(budget)
        if "minAvailable" in spec and "maxUnavailable" in spec:
            yield f"{name}: has both minAvailable and maxUnavailable, expected one of them"
        found = objects.selected(spec["selector"])
        if len(found) != 1:
            yield f"{name}: expected to select one workload, selects {len(found)}"
        for each in found:
            replicas = each.spec.get("replicas", 1)
            if isinstance(spec.get("minAvailable"), int) and spec["minAvailable"] >= replicas:
                yield (
                    f"{name}: minAvailable {spec['minAvailable']} of {replicas} replicas: no pod "
                    "could ever be evicted"
                )
            if spec.get("maxUnavailable") in (0, "0%"):
                yield f"{name}: maxUnavailable 0: no pod could ever be evicted"
    for each in objects.workloads():
        selecting = [
            budget
            for budget in objects.of("PodDisruptionBudget")
            if selects(budget["spec"]["selector"], each.labels)
        ]
        if each.kind == "Deployment" and not selecting:
            yield f"{each.title}: has no PodDisruptionBudget"


def service_accounts_are_there(objects: Objects) -> Iterator[str]:
    """Pods of an account that is not there are never made."""
    for each in objects.workloads():
        account = each.pod.get("serviceAccountName", "default")
        if objects.named("ServiceAccount", account) is None:
            yield f"{each.title}: there is no ServiceAccount {account!r}"


def role_bindings_bind_what_is_there(objects: Objects) -> Iterator[str]:
    """A binding to a misspelt role or account is no error: it grants nothing."""
    for binding in objects.of("RoleBinding"):
        namespace = binding["metadata"].get("namespace")
        role = binding["roleRef"]["name"]
        if objects.named(binding["roleRef"]["kind"], role) is None:
            yield f"{title(binding)}: there is no {binding['roleRef']['kind']} {role!r}"
        for subject in binding.get("subjects", ()):
            if objects.named(subject["kind"], subject["name"]) is None:
                yield f"{title(binding)}: there is no {subject['kind']} {subject['name']!r}"
            if subject.get("namespace") != namespace:
                yield (
                    f"{title(binding)}: names an account of namespace "
                    f"{subject.get('namespace')!r}, expected {namespace!r}"
                )


def mounts_have_volumes(objects: Objects) -> Iterator[str]:
    """A mount names a volume of its pod, a volume a claim, a claim a volume of the cluster."""
    for each in objects.workloads():
        volumes = {volume["name"]: volume for volume in each.pod.get("volumes", ())}
        mounts = [mount for box in each.containers for mount in box.get("volumeMounts", ())]
        for mount in mounts:
            if mount["name"] not in volumes:
                yield f"{each.title}: mounts {mount['name']!r}, which is not among its volumes"
        for name in sorted(set(volumes) - {mount["name"] for mount in mounts}):
            yield f"{each.title}: nothing mounts the volume {name!r}"
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and objects.named("PersistentVolumeClaim", claim) is None:
                yield f"{each.title}: there is no PersistentVolumeClaim {claim!r}"


def claims_can_be_bound(objects: Objects) -> Iterator[str]:
    """A claim that its volume cannot serve stays Pending, and every pod with it."""
    for claim in objects.of("PersistentVolumeClaim"):
        spec, metadata = claim["spec"], claim["metadata"]
        volume = objects.named("PersistentVolume", spec.get("volumeName", ""))
        if volume is None:
            yield f"{title(claim)}: there is no PersistentVolume {spec.get('volumeName')!r}"
            continue
        name, offers = title(volume), volume["spec"]
        wanted = {"namespace": metadata.get("namespace"), "name": metadata["name"]}
        if offers.get("claimRef") != wanted:
            yield f"{name}: is kept for {offers.get('claimRef')}, expected {wanted}"
        if not set(spec["accessModes"]) <= set(offers["accessModes"]):
            yield f"{title(claim)}: wants {spec['accessModes']}, {name} has {offers['accessModes']}"
        if amount(spec["resources"]["requests"]["storage"]) > amount(offers["capacity"]["storage"]):
            yield f"{title(claim)}: asks for more storage than {name} has"


def addresses_name_a_service(objects: Objects) -> Iterator[str]:
    """The orchestrator's addresses are plain text to every schema."""
    services = {each["metadata"]["name"]: each["spec"]["ports"] for each in objects.of("Service")}
    for each in objects.workloads():
        for name, value in _addresses(each.containers):
            service, _, port = value.removeprefix(ADDRESS).partition(":")
            if service not in services:
                yield f"{each.title}: {name} names the Service {service!r}, which is not there"
            elif int(port or 0) not in {entry["port"] for entry in services[service]}:
                yield f"{each.title}: {name} names port {port} of the Service {service!r}"


def _addresses(containers: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for container in containers:
        for name, value in environment(container).items():
            if value is not None and value.startswith(ADDRESS):
                yield name, value


def autoscalers_have_a_target_to_themselves(objects: Objects) -> Iterator[str]:
    """Two autoscalers, or one and a fixed number, set the same replicas in turn."""
    targets: list[str] = []
    for scaler in [*objects.of("HorizontalPodAutoscaler"), *objects.of("ScaledObject")]:
        target = scaler["spec"]["scaleTargetRef"]["name"]
        targets.append(target)
        found = objects.named("Deployment", target)
        if found is None:
            yield f"{title(scaler)}: there is no Deployment {target!r}"
            continue
        if "replicas" in found["spec"]:
            yield f"{title(found)}: says replicas, which {title(scaler)} sets"
        boxes = [box["name"] for box in found["spec"]["template"]["spec"]["containers"]]
        for metric in scaler["spec"].get("metrics", ()):
            box = metric.get("containerResource", {}).get("container", boxes[0])
            if box not in boxes:
                yield f"{title(scaler)}: {title(found)} has no container {box!r}"
    for target, count in Counter(targets).items():
        if count > 1:
            yield f"Deployment/{target}: has {count} autoscalers"
