"""A read-only client of the Kubernetes API: lists of objects, and logs of pods.

Objects stay the JSON that the server sends, because the models of the `kubernetes` package reject
some of it. The message of a failed call says what was requested, what came, and what to do.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from k8s.checks.rendering import Manifest

CONNECT_S, ANSWER_S = 5.0, 60.0
UNAUTHORIZED, FORBIDDEN = 401, 403


class ClusterError(RuntimeError):
    """A request to the API server that failed; the message says why."""


class Unreachable(ClusterError):
    """The API server did not answer, or not as one."""


class Refused(ClusterError):
    """The API server answered with an error.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A kind of objects, as the paths of the API name it.

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
        """The name in RBAC rules and error messages, such as "deployments.apps"."""
        group, _, version = self.api_version.rpartition("/")
        return f"{self.plural}.{group}" if version and group else self.plural

    def path(self, namespace: str | None, *names: str) -> str:
        """Returns the path of its list, of one object, or of a subresource."""
        where = ["namespaces", namespace] if self.namespaced and namespace else []
        return "/".join([_root(self.api_version), *where, self.plural, *names])


class Cluster:
    """A cluster that a context of the user's kubeconfig names."""

    def __init__(self, context: str | None = None) -> None:
        """Reads the kubeconfig; sends the cluster nothing.

        Args:
            context: A context's name; the current one if None.

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

    def resource(self, api_version: str, kind: str) -> Resource:
        """Returns how the paths of the API name a kind.

        Raises:
            ClusterError: the cluster does not have the kind.
        """
        if (api_version, kind) not in self._resources:
            answer = self._json(_root(api_version), what=f"read {api_version}")
            for each in answer["resources"]:
                if "/" not in each["name"]:  # those are subresources
                    self._resources[api_version, each["kind"]] = Resource(
                        api_version=api_version,
                        plural=each["name"],
                        namespaced=each["namespaced"],
                    )
        try:
            return self._resources[api_version, kind]
        except KeyError:
            raise ClusterError(f"the cluster has no kind {kind} in {api_version}") from None

    def objects(
        self, api_version: str, kind: str, namespace: str | None = None, **query: str
    ) -> list[Manifest]:
        """Returns the objects of a kind, of one namespace or of the cluster."""
        resource = self.resource(api_version, kind)
        answer = self._json(
            resource.path(namespace), what=_what("list", resource, namespace), query=query
        )
        return list(answer["items"] or ())

    def log(self, namespace: str, pod: str, query: Mapping[str, str]) -> Iterator[str]:
        """Yields the lines of a pod's log.

        Args:
            namespace: Of the pod.
            pod: Its name.
            query: Parameters of the API, such as container, previous and tailLines.
        """
        resource = self.resource("v1", "Pod")
        response = self._answer(
            resource.path(namespace, pod, "log"),
            what=_what("get", resource, namespace, "log"),
            subject=f"Pod/{pod}",
            query=query,
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

    def _json(
        self, path: str, *, what: str, query: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]:
        """Returns the content of an answer.

        Raises:
            Unreachable: the answer breaks off, or does not come from an API server.
        """
        response = self._answer(path, what=what, query=query)
        try:
            content: Mapping[str, Any] = json.loads(response.read())
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(
                f"the answer of the API server {self.server} broke off: {error}"
            ) from error
        except ValueError as error:
            raise Unreachable(
                f"expected JSON of an API server at {self.server}, got something else: {error}; "
                f"does the context {self.context} name the right address, or does a proxy answer?"
            ) from error
        return content

    def _answer(
        self, path: str, *, what: str, subject: str = "", query: Mapping[str, str] | None = None
    ) -> Any:
        """Returns the server's response, whose content is not read yet.

        Raises:
            Refused: the server answers with an error.
            Unreachable: the server does not answer.
        """
        try:
            serialised = self._client.param_serialize(
                "GET",
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "*/*"},
                auth_settings=["BearerToken"],
            )
            response = self._client.call_api(*serialised, _request_timeout=(CONNECT_S, ANSWER_S))
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
        status, before = response.status, f"{subject}: " if subject else ""
        if status == UNAUTHORIZED:
            text = (
                f"the cluster of the context {self.context} does not know you (401): its "
                "credentials in the kubeconfig are wrong or have expired"
            )
        elif status == FORBIDDEN:
            text = f"{before}you may not {what} (403): ask for a Role that lets you; {message}"
        else:
            text = f"{before}the cluster refused to {what} ({status}): {message}"
        return Refused(text, status)


def _check_context(file: str | None, context: str) -> None:
    """Checks that a kubeconfig has a context.

    Raises:
        ValueError: it has not; the message lists those that it has.
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
    """Returns a request in the words of the Role that would allow it."""
    name = f"{resource.title}/{below}" if below else resource.title
    where = f" in namespace {namespace}" if namespace and resource.namespaced else ""
    return f"{verb} {name}{where}"
