"""Certificates: a server has one with the names that it is called by, or is allowed plain text."""

from collections.abc import Iterator

from k8s.checks.objects import Check, Objects, Workload, check_workloads, environment, title
from k8s.checks.rendering import Manifest

TLS_VOLUME = "tls"  # of a pod; other Secrets, such as that of API keys, are of no Certificate


def _secrets(each: Workload) -> list[str]:
    """Returns the name of the Secret of certificates that a workload mounts, if any."""
    secret = each.volumes.get(TLS_VOLUME, {}).get("secret")
    return [] if secret is None else [str(secret["secretName"])]


def _certificates(each: Workload) -> list[Manifest]:
    """Returns the specs of the Certificates that a workload mounts."""
    specs = [found["spec"] for found in each.objects.of("Certificate")]
    return [spec for spec in specs if spec["secretName"] in _secrets(each)]


def _names(each: Workload) -> set[str]:
    """Returns the names that a workload's certificates have."""
    certificates = _certificates(each)
    kinds = ("dnsNames", "uris")
    return {name for spec in certificates for kind in kinds for name in spec.get(kind, ())}


@check_workloads()
def secrets_come_from_certificates(each: Workload) -> Iterator[str]:
    """A pod whose Secret nothing makes never starts."""
    made = {found["spec"]["secretName"] for found in each.objects.of("Certificate")}
    for name in _secrets(each):
        if name not in made:
            yield f"mounts the Secret {name!r}, which no Certificate makes"


@check_workloads("Deployment")
def servers_encrypt_or_are_allowed_plain_text(each: Workload) -> Iterator[str]:
    """A server that other pods reach starts in plain text only if it is allowed to."""
    for variables in map(environment, each.containers):
        secure, plain = "MUSE_TLS_CERT" in variables, "MUSE_INSECURE" in variables
        if "MUSE_HOST" in variables and secure == plain:
            yield f"expected MUSE_TLS_CERT or MUSE_INSECURE, got {'both' if plain else 'neither'}"


@check_workloads("Deployment")
def probes_need_no_certificate(each: Workload) -> Iterator[str]:
    """Probes speak what their port does, and those by gRPC speak plain text alone."""
    for box in each.containers:
        variables = environment(box)
        encrypted = "MUSE_TLS_CERT" in variables
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = box.get(kind, {})
            if "httpGet" in probe:
                scheme = probe["httpGet"].get("scheme", "HTTP")
                if scheme != ("HTTPS" if encrypted else "HTTP"):
                    yield f"its {kind} speaks {scheme}, which its server does not"
                continue
            if not encrypted:
                continue
            port = probe.get("grpc", {}).get("port")
            if str(port) != variables.get("MUSE_HEALTH_PORT"):
                yield f"its {kind} asks port {port}, where nothing answers in plain text"


@Check
def certificates_have_the_names_of_services(objects: Objects) -> Iterator[str]:
    """Callers refuse a server whose certificate has not the name by which they call it."""
    for service in objects.of("Service"):
        for each in objects.selected({"matchLabels": service["spec"].get("selector", {})}):
            name = service["metadata"]["name"]
            if _secrets(each) and name not in _names(each):
                yield f"{each.title}: its Certificate has not the name of {title(service)}"


@Check
def accepted_clients_are_the_orchestrator(objects: Objects) -> Iterator[str]:
    """A stage that accepts another name refuses every call."""
    callers = [each for each in objects.workloads() if each.component == "orchestrator"]
    known = {name for each in callers for name in _names(each)}
    for each in objects.workloads("Deployment"):
        for box in each.containers:
            for name in (environment(box).get("MUSE_TLS_CLIENTS") or "").split():
                if name not in known:
                    yield f"{each.title}: accepts {name!r}, which the orchestrator's is not"


@Check
def certificates_have_an_issuer(objects: Objects) -> Iterator[str]:
    """A Certificate of an issuer that is not there is never made, nor is an issuer without key."""
    certificates = objects.of("Certificate")
    for certificate in certificates:
        issuer = certificate["spec"]["issuerRef"]["name"]
        if objects.named("Issuer", issuer) is None:
            yield f"{title(certificate)}: there is no Issuer {issuer!r}"
    authorities = {each["spec"]["secretName"] for each in certificates if "isCA" in each["spec"]}
    for each in objects.of("Issuer"):
        secret = each["spec"].get("ca", {}).get("secretName")
        if secret is not None and secret not in authorities:
            yield f"{title(each)}: no Certificate of an authority makes the Secret {secret!r}"
