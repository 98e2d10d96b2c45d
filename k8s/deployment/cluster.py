"""A read-only client of the Kubernetes API: lists of objects, and logs of pods.

Objects stay the JSON that the server sends, because the models of the `kubernetes` package reject
some of it. The message of a failed call says what was requested, what came, and what to do.
"""

import json
import logging
import os
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from k8s.checks.rendering import Manifest

CONNECT_S, ANSWER_S = 5.0, 60.0


class ClusterError(RuntimeError):
    """A request to the API server that failed; the message says why."""


class Cluster:
    """A cluster that a context of the user's kubeconfig names."""

    def __init__(self, context: str | None = None) -> None:
        """Reads a context of the kubeconfig, or its current one; sends the cluster nothing.

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
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of every retry
        self._client = client.ApiClient(configuration)

    def objects(
        self, api_version: str, kind: str, namespace: str | None = None, **query: str
    ) -> list[Manifest]:
        """Returns the objects of a kind, such as "apps/v1" "Deployment", by a query if any.

        Raises:
            ClusterError: the server refuses, or does not answer as an API server.
        """
        group, plural = api_version.rpartition("/")[0], f"{kind.lower()}s".replace("ys", "ies")
        root = f"/apis/{api_version}" if group else f"/api/{api_version}"
        what = f"list {plural}.{group}" if group else f"list {plural}"
        if namespace is not None:
            root, what = f"{root}/namespaces/{namespace}", f"{what} in namespace {namespace}"
        content = self._get(f"{root}/{plural}", what, query)
        try:
            return list(json.loads(content)["items"] or ())
        except ValueError as error:
            raise ClusterError(
                f"expected JSON of an API server at {self.server}, got something else: {error}; "
                f"does the context {self.context} name the right address, or does a proxy answer?"
            ) from error

    def log(self, namespace: str, pod: str, **query: str) -> list[str]:
        """Returns lines of a pod's log, by a query such as container, previous and tailLines.

        Raises:
            ClusterError: the server refuses, or does not answer.
        """
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        what = f"get pods/log in namespace {namespace}"
        content = self._get(path, what, query, f"Pod/{pod}: ").decode(errors="replace")
        return content.removesuffix("\n").split("\n") if content else []

    def _get(self, path: str, what: str, query: dict[str, str], subject: str = "") -> bytes:
        """Returns the content of an answer; `what` and `subject` say in errors what was asked."""
        try:
            serialised = self._client.param_serialize(
                "GET",
                path,
                query_params=list(query.items()),
                header_params={"Accept": "*/*"},
                auth_settings=["BearerToken"],
            )
            response = self._client.call_api(*serialised, _request_timeout=(CONNECT_S, ANSWER_S))
        except (urllib3.exceptions.HTTPError, client.ApiException, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise ClusterError(
                f"the API server {self.server} of the context {self.context} cannot be reached: "
                f"{reason}; is the cluster up, and is it the context you mean?"
            ) from error
        try:
            content: bytes = response.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterError(
                f"the answer of the API server {self.server} broke off: {error}"
            ) from error
        if not 200 <= response.status <= 299:
            raise ClusterError(
                self._refusal(response, content.decode(errors="replace"), what, subject)
            )
        return content

    def _refusal(self, response: Any, content: str, what: str, subject: str) -> str:
        try:
            message = json.loads(content).get("message")
        except json.JSONDecodeError:
            message = content.strip()
        message = message or response.reason
        if response.status == 401:
            return (
                f"the cluster of the context {self.context} does not know you (401): its "
                "credentials in the kubeconfig are wrong or have expired"
            )
        if response.status == 403:
            return f"{subject}you may not {what} (403): ask for a Role that lets you; {message}"
        return f"{subject}the cluster refused to {what} ({response.status}): {message}"


def _check_context(file: str | None, context: str) -> None:
    """Raises ValueError, with the contexts of a kubeconfig, if it has not this one."""
    try:
        known, _ = config.list_kube_config_contexts(file)
    except (config.ConfigException, yaml.YAMLError, OSError):
        return  # without a current context it lists none; what else is wrong is said later
    names = [each["name"] for each in known]
    if context not in names:
        raise ValueError(f"context: expected one of {', '.join(names)}, got {context!r}")
