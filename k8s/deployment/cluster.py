"""The API server of Kubernetes, behind the few calls that deploying needs.

Objects are JSON as the server says it: the client's models refuse some of what it says. A call that
fails is a sentence: what was asked, what came, what to do.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from k8s.checks.objects import title
from k8s.checks.rendering import Manifest

FIELD_MANAGER = "muse"  # of what an overlay says
SCALE_MANAGER = "muse-scale"  # of a number of replicas that `muse deploy scale` set
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
CONNECT_S, ANSWER_S = 5.0, 60.0
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY, INTERNAL = 401, 403, 404, 429, 500


class ClusterError(RuntimeError):
    """The cluster cannot do what was asked; the message says why.

    Attributes:
        passing: Whether the same may do in a while, as nothing is wrong with what was asked.
    """

    passing = False


class Unreachable(ClusterError):
    """The API server did not answer at all."""

    passing = True


class Refused(ClusterError):
    """The API server answered with a failure.

    Attributes:
        status: The HTTP status.
        causes: What the server says of single fields.
    """

    def __init__(self, message: str, status: int, causes: list[Mapping[str, str]]) -> None:
        super().__init__(message)
        self.status, self.causes = status, causes
        self.passing = status == TOO_MANY or status >= INTERNAL


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What the API server calls a kind.

    Attributes:
        api_version: Such as "apps/v1".
        plural: Such as "deployments".
        namespaced: Whether its objects are in a namespace.
    """

    api_version: str
    plural: str
    namespaced: bool

    @property
    def title(self) -> str:
        """As RBAC and error messages say it: "deployments.apps"."""
        group, _, version = self.api_version.rpartition("/")
        return f"{self.plural}.{group}" if version and group else self.plural

    def path(self, namespace: str | None, *names: str) -> str:
        """Returns the path of its list, of one object, or of what is below it."""
        where = ["namespaces", namespace] if self.namespaced and namespace else []
        return "/".join([_root(self.api_version), *where, self.plural, *names])


class Cluster:
    """One cluster, as one context of the user's kubeconfig reaches it."""

    def __init__(self, context: str | None = None) -> None:
        """Reads the kubeconfig; asks the cluster nothing.

        Args:
            context: Its name there; the current one if None.

        Raises:
            ValueError: there is no kubeconfig, or no such context in it.
        """
        configuration = client.Configuration()
        file = os.environ.get("KUBECONFIG")
        if context is not None:
            _check_context(file, context)
        try:
            config.load_kube_config(file, context=context, client_configuration=configuration)
            self.context: str = context or config.list_kube_config_contexts(file)[1]["name"]
        except (config.ConfigException, yaml.YAMLError, OSError) as error:
            raise ValueError(
                f"expected a kubeconfig in {file or '~/.kube/config'} that says how to reach a "
                f"cluster: {error}; name one with KUBECONFIG, or make one, such as with `gcloud "
                "container clusters get-credentials`"
            ) from error
        configuration.retries = urllib3.Retry(total=3, backoff_factor=0.2)
        self.server: str = configuration.host
        self._client = client.ApiClient(configuration)
        self._resources: dict[tuple[str, str], Resource] = {}

    def knows(self, api_version: str, kind: str) -> bool:
        """Returns whether the cluster has a kind."""
        if (api_version, kind) not in self._resources:
            try:
                answer = self._json("GET", _root(api_version), what=f"read {api_version}")
            except Refused as error:
                if error.status == NOT_FOUND:
                    return False
                raise
            for each in answer["resources"]:
                if "/" not in each["name"]:  # those are below another
                    self._resources[api_version, each["kind"]] = Resource(
                        api_version=api_version,
                        plural=each["name"],
                        namespaced=each["namespaced"],
                    )
        return (api_version, kind) in self._resources

    def resource(self, api_version: str, kind: str) -> Resource:
        """Returns what the API server calls a kind.

        Raises:
            ClusterError: it does not know it.
        """
        if not self.knows(api_version, kind):
            raise ClusterError(
                f"the cluster does not know {api_version} {kind}: install what defines it, or take "
                "the component that asks for it out of the overlay"
            )
        return self._resources[api_version, kind]

    def apply(
        self, manifest: Manifest, *, dry_run: bool = False, force: bool = False
    ) -> tuple[Manifest, bool]:
        """Applies an object on the server, as the field manager "muse".

        Args:
            manifest: The object.
            dry_run: Everything but keeping it: admission included.
            force: Take over fields that another manager has set.

        Returns:
            The object as the server has it now, and whether it is new.

        Raises:
            Refused: among others with 409 and a cause for each field that another manager has.
        """
        resource = self.resource(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        if dry_run:
            query["dryRun"] = "All"
        response = self._answer(
            "PATCH",
            resource.path(metadata.get("namespace"), metadata["name"]),
            what=_what("patch", resource, metadata.get("namespace")),
            subject=title(manifest),
            query=query,
            body=manifest,
            content_type=APPLY,
        )
        return self._content(response), response.status == 201

    def objects(
        self, api_version: str, kind: str, namespace: str | None = None, **query: str
    ) -> list[Manifest]:
        """Returns the objects of a kind, of one namespace or of the cluster."""
        resource = self.resource(api_version, kind)
        answer = self._json(
            "GET", resource.path(namespace), what=_what("list", resource, namespace), query=query
        )
        return list(answer["items"] or ())

    def get(self, api_version: str, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """Returns one object, or None."""
        resource = self.resource(api_version, kind)
        try:
            return dict(
                self._json(
                    "GET",
                    resource.path(namespace, name),
                    what=_what("get", resource, namespace),
                    subject=f"{kind}/{name}",
                )
            )
        except Refused as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def scale(self, namespace: str, deployment: str, replicas: int) -> None:
        """Sets how many replicas a Deployment has."""
        resource = self.resource("apps/v1", "Deployment")
        self._json(
            "PATCH",
            resource.path(namespace, deployment, "scale"),
            what=_what("patch", resource, namespace, "scale"),
            subject=f"Deployment/{deployment}",
            query={"fieldManager": SCALE_MANAGER},
            body={"spec": {"replicas": replicas}},
            content_type=MERGE,
        )

    def log(
        self, namespace: str, pod: str, query: Mapping[str, str], *, follow: bool = False
    ) -> Iterator[str]:
        """Yields the lines of a pod's log, as they come.

        Args:
            namespace: Of the pod.
            pod: Its name.
            query: As the API has it: container, previous, sinceSeconds, tailLines, timestamps.
            follow: Wait for further lines until the container ends.
        """
        resource = self.resource("v1", "Pod")
        response = self._answer(
            "GET",
            resource.path(namespace, pod, "log"),
            what=_what("get", resource, namespace, "log"),
            subject=f"Pod/{pod}",
            query={**query, "follow": str(follow).lower()},
            read_s=None if follow else ANSWER_S,
        )
        rest = b""
        try:
            for piece in response.response.stream(2**14):
                *lines, rest = (rest + piece).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            if rest:
                yield rest.decode(errors="replace")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"Pod/{pod}: its log broke off: {error}") from error
        finally:
            response.response.close()

    def _json(self, method: str, path: str, **arguments: Any) -> Any:
        return self._content(self._answer(method, path, **arguments))

    def _content(self, response: Any) -> Any:
        """Returns what an answer says.

        Raises:
            Unreachable: it breaks off, or is none of an API server.
        """
        try:
            return json.loads(response.read())
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(
                f"the answer of the API server {self.server} broke off: {error}"
            ) from error
        except ValueError as error:
            raise Unreachable(
                f"expected JSON of an API server at {self.server}, got something else: {error}; "
                f"does the context {self.context} name the right address, or does a proxy answer?"
            ) from error

    def _answer(
        self,
        method: str,
        path: str,
        *,
        what: str,
        subject: str = "",
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "",
        read_s: float | None = ANSWER_S,
    ) -> Any:
        """Returns the answer of the server, its content not read yet.

        Raises:
            Refused: it is a failure.
            Unreachable: there is none.
        """
        headers = {"Accept": "*/*"} | ({"Content-Type": content_type} if content_type else {})
        try:
            serialised = self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = self._client.call_api(*serialised, _request_timeout=(CONNECT_S, read_s))
        except (urllib3.exceptions.HTTPError, client.ApiException, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise Unreachable(
                f"the API server {self.server} of the context {self.context} cannot be reached: "
                f"{reason}; is the cluster up, and is it the context you mean?"
            ) from error
        if not 200 <= response.status <= 299:
            raise self._refusal(response, what, subject)
        return response

    def _refusal(self, response: Any, what: str, subject: str) -> Refused:
        content = response.read().decode(errors="replace")
        try:
            said = json.loads(content)
        except json.JSONDecodeError:
            said = {"message": content.strip()}
        message = said.get("message") or response.reason
        causes = (said.get("details") or {}).get("causes") or []
        status, before = response.status, f"{subject}: " if subject else ""
        if status == UNAUTHORIZED:
            text = (
                f"the cluster of the context {self.context} does not know you (401): its "
                "credentials in the kubeconfig are wrong or have expired"
            )
        elif status == FORBIDDEN and " cannot " in message:  # by RBAC; admission says 403 too
            text = f"{before}you may not {what} (403): ask for a Role that lets you; {message}"
        elif status == FORBIDDEN:
            text = f"{before}the cluster does not admit it (403): {message}"
        else:
            text = f"{before}the cluster refused to {what} ({status}): {message}"
        return Refused(text, status, causes)


def _check_context(file: str | None, context: str) -> None:
    """Says which contexts there are, if there is not this one.

    Raises:
        ValueError: there is not.
    """
    try:
        known, _ = config.list_kube_config_contexts(file)
    except (config.ConfigException, yaml.YAMLError, OSError):
        return  # without a current context it lists none; what else is wrong is said later
    names = [each["name"] for each in known]
    if context not in names:
        raise ValueError(f"context: expected one of {', '.join(names)}, got {context!r}")


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _what(verb: str, resource: Resource, namespace: str | None, below: str = "") -> str:
    """Returns what is asked, as a Role would have to allow it."""
    name = f"{resource.title}/{below}" if below else resource.title
    where = f" in namespace {namespace}" if namespace and resource.namespaced else ""
    return f"{verb} {name}{where}"
