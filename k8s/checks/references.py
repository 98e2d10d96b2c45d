"""One object names another: is it there, and is it what the name says?"""

from collections import Counter
from collections.abc import Iterator

from k8s.checks.objects import (
    CLUSTER_WIDE,
    Check,
    Objects,
    Workload,
    amount,
    at,
    check_workloads,
    environment,
    selects,
    title,
)

LONGEST_PORT_NAME = 15  # RFC 6335, which Kubernetes holds ports' names to
ADDRESS = "dns:///"


@Check
def no_object_is_there_twice(objects: Objects) -> Iterator[str]:
    """A second object of the same name replaces the first, unseen."""
    for name, count in Counter(map(title, objects.all)).items():
        if count > 1:
            yield f"{name}: is there {count} times"


@Check
def all_are_in_the_overlays_namespace(objects: Objects) -> Iterator[str]:
    """An object without a namespace lands in whichever one kubectl points to."""
    names = [each["metadata"]["name"] for each in objects.of("Namespace")]
    for each in objects.all:
        namespace = each["metadata"].get("namespace")
        if each["kind"] not in CLUSTER_WIDE and namespace not in names:
            yield f"{title(each)}: is in namespace {namespace!r}, expected one of {names}"


@check_workloads()
def selectors_select_their_own_pods(each: Workload) -> Iterator[str]:
    """The API server refuses a Deployment that would not find its pods."""
    if "selector" in each.spec and not selects(each.spec["selector"], each.labels):
        yield "its selector does not select its own pods' labels"
    for spread in each.pod.get("topologySpreadConstraints", ()):
        if not selects(spread["labelSelector"], each.labels):
            yield "a topologySpreadConstraint does not count its own pods"


@check_workloads("Deployment")
def deployments_do_not_share_pods(each: Workload) -> Iterator[str]:
    """Two Deployments that select the same pods fight over them."""
    titles = [other.title for other in each.objects.selected(each.spec["selector"])]
    if others := [other for other in titles if other != each.title]:
        yield f"its selector also selects the pods of {', '.join(others)}"


@Check
def services_reach_a_port(objects: Objects) -> Iterator[str]:
    """A Service whose selector or target is wrong has no endpoints, and nothing says so."""
    for service in objects.of("Service"):
        name, spec = title(service), service["spec"]
        found = objects.selected({"matchLabels": spec.get("selector", {})})
        if not found:
            yield f"{name}: selects no pods"
        for each in found:
            numbers = {port.get("name"): port["containerPort"] for port in each.ports}
            known = {*numbers, *(port["containerPort"] for port in each.ports)}
            for port in spec["ports"]:
                target = port.get("targetPort", port["port"])
                if target not in known:
                    yield f"{name}: {each.title} has no port {target!r}"
                number = numbers.get(target, target)
                if spec.get("clusterIP") == "None" and number != port["port"]:
                    yield (
                        f"{name}: is headless, so callers reach port {port['port']} of the pod "
                        f"itself, but it listens on {number}"
                    )


@check_workloads()
def port_names_are_short(each: Workload) -> Iterator[str]:
    """A port's name has at most 15 characters, which the schema does not say."""
    for port in each.ports:
        if len(port.get("name", "")) > LONGEST_PORT_NAME:
            yield f"port name {port['name']!r} has more than 15 characters"


@Check
def budgets_can_be_kept(objects: Objects) -> Iterator[str]:
    """A budget that allows no eviction blocks every node upgrade."""
    for budget in objects.of("PodDisruptionBudget"):
        spec, name = budget["spec"], title(budget)
        if "minAvailable" in spec and "maxUnavailable" in spec:
            yield f"{name}: has both minAvailable and maxUnavailable, expected one of them"
        found, least = objects.selected(spec["selector"]), spec.get("minAvailable")
        if len(found) != 1:
            yield f"{name}: expected to select one workload, selects {len(found)}"
        for each in found:
            replicas = each.spec.get("replicas", 1)
            if isinstance(least, int) and least >= replicas:
                yield (
                    f"{name}: minAvailable {least} of {replicas} replicas: no pod could ever be "
                    "evicted"
                )
            if spec.get("maxUnavailable") in (0, "0%"):
                yield f"{name}: maxUnavailable 0: no pod could ever be evicted"


@check_workloads("Deployment")
def deployments_have_a_budget(each: Workload) -> Iterator[str]:
    """Without a budget a node upgrade may evict all pods at once."""
    budgets = each.objects.of("PodDisruptionBudget")
    if not any(selects(budget["spec"]["selector"], each.labels) for budget in budgets):
        yield "has no PodDisruptionBudget"


@check_workloads()
def service_accounts_are_there(each: Workload) -> Iterator[str]:
    """Pods of an account that is not there are never made."""
    if each.objects.named("ServiceAccount", each.account) is None:
        yield f"there is no ServiceAccount {each.account!r}"


@Check
def role_bindings_bind_what_is_there(objects: Objects) -> Iterator[str]:
    """A binding to a misspelt role or account is no error: it grants nothing."""
    for binding in objects.of("RoleBinding"):
        name, namespace = title(binding), binding["metadata"].get("namespace")
        subjects = binding.get("subjects", ())
        for subject in (binding["roleRef"], *subjects):
            if objects.named(subject["kind"], subject["name"]) is None:
                yield f"{name}: there is no {subject['kind']} {subject['name']!r}"
            if subject in subjects and subject.get("namespace") != namespace:
                yield (
                    f"{name}: names an account of namespace {subject.get('namespace')!r}, "
                    f"expected {namespace!r}"
                )


@check_workloads()
def mounts_have_volumes(each: Workload) -> Iterator[str]:
    """A mount names a volume of its pod, a volume a claim, a claim a volume of the cluster."""
    names = [mount["name"] for mount in each.mounts]
    for name in names:
        if name not in each.volumes:
            yield f"mounts {name!r}, which is not among its volumes"
    for name in sorted(each.volumes.keys() - set(names)):
        yield f"nothing mounts the volume {name!r}"
    for volume in each.volumes.values():
        claim = at(volume, "persistentVolumeClaim.claimName")
        if claim and each.objects.named("PersistentVolumeClaim", claim) is None:
            yield f"there is no PersistentVolumeClaim {claim!r}"


@Check
def claims_can_be_bound(objects: Objects) -> Iterator[str]:
    """A claim that its volume cannot serve stays Pending, and every pod with it."""
    for claim in objects.of("PersistentVolumeClaim"):
        spec, metadata = claim["spec"], claim["metadata"]
        if "volumeName" not in spec:  # its class makes one
            continue
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


@Check
def ingresses_name_a_service(objects: Objects) -> Iterator[str]:
    """A path whose Service or port is not there is answered 503, by the ingress controller."""
    for ingress in objects.of("Ingress"):
        for rule in ingress["spec"].get("rules", ()):
            for path in at(rule, "http.paths", ()):
                backend = path["backend"]["service"]
                found = objects.named("Service", backend["name"])
                if found is None:
                    yield f"{title(ingress)}: there is no Service {backend['name']!r}"
                    continue
                for field, port in backend["port"].items():
                    known = {"name": "name", "number": "port"}[field]
                    if port not in {each.get(known) for each in found["spec"]["ports"]}:
                        yield f"{title(ingress)}: {title(found)} has no port {port!r}"


@Check
def routes_name_a_service(objects: Objects) -> Iterator[str]:
    """A route whose Service or port is not there is answered 500, by its controller."""
    for route in objects.of("HTTPRoute"):
        for backend in (each for rule in route["spec"]["rules"] for each in rule["backendRefs"]):
            found = objects.named("Service", backend["name"])
            if found is None:
                yield f"{title(route)}: there is no Service {backend['name']!r}"
            elif backend["port"] not in {each["port"] for each in found["spec"]["ports"]}:
                yield f"{title(route)}: {title(found)} has no port {backend['port']}"


@check_workloads()
def addresses_name_a_service(each: Workload) -> Iterator[str]:
    """Addresses of the servers that a server calls are plain text to every schema."""
    variables = [entry for box in each.containers for entry in environment(box).items()]
    for name, value in variables:
        if value is None or not value.startswith(ADDRESS):
            continue
        service, _, port = value.removeprefix(ADDRESS).partition(":")
        found = each.objects.named("Service", service)
        if found is None:
            yield f"{name} names the Service {service!r}, which is not there"
        elif int(port or 0) not in {entry["port"] for entry in found["spec"]["ports"]}:
            yield f"{name} names port {port} of the Service {service!r}"


@Check
def autoscalers_have_a_target_to_themselves(objects: Objects) -> Iterator[str]:
    """Two autoscalers, or one and a fixed number, set the same replicas in turn."""
    targets: list[str] = []
    for scaler in objects.of("HorizontalPodAutoscaler", "ScaledObject"):
        targets.append(scaler["spec"]["scaleTargetRef"]["name"])
        found = objects.named("Deployment", targets[-1])
        if found is None:
            yield f"{title(scaler)}: there is no Deployment {targets[-1]!r}"
            continue
        if "replicas" in found["spec"]:
            yield f"{title(found)}: says replicas, which {title(scaler)} sets"
        boxes = [box["name"] for box in at(found, "spec.template.spec.containers")]
        for metric in scaler["spec"].get("metrics", ()):
            box = at(metric, "containerResource.container", boxes[0])
            if box not in boxes:
                yield f"{title(scaler)}: {title(found)} has no container {box!r}"
    for target, count in Counter(targets).items():
        if count > 1:
            yield f"Deployment/{target}: has {count} autoscalers"
