"""Kubernetes manifests held against schemas, as an API server would, without one.

KubeRay's objects against the OpenAPI schemas of its CustomResourceDefinitions, unknown fields refused and CEL rules
evaluated; everything else against the schemas of Kubernetes; then what this project asks of every pod.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import celpy
import celpy.adapter
import jsonschema
import kubernetes_validate

Object = dict[str, Any]
CLUSTER_WIDE = ("Namespace",)


def named(thing: Object) -> str:
    """An object in a message."""
    return f"{thing.get('kind')} {thing.get('metadata', {}).get('name')}"


# Custom resources


def closed(schema: Mapping[str, Any]) -> Any:
    """The JSON schema that a structural schema of a CRD stands for, with every unknown field refused."""
    found: dict[str, Any] = {}
    properties = schema.get("properties", {})
    if schema.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    elif "type" in schema:
        found["type"] = [schema["type"], "null"] if schema.get("nullable") else schema["type"]
    for key in (
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "minProperties",
    ):
        if key in schema:
            found[key] = schema[key]
    if properties:
        found["properties"] = {name: closed(below) for name, below in properties.items()}
        # The API server fills defaults in before it asks what is missing.
        found["required"] = [name for name in schema.get("required", ()) if "default" not in properties.get(name, {})]
    if isinstance(schema.get("additionalProperties"), Mapping):
        found["additionalProperties"] = closed(schema["additionalProperties"])
    elif properties and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    if "items" in schema:
        found["items"] = closed(schema["items"])
    return found


@functools.cache
def compiled(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def cel_problems(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    """Broken CEL rules of a schema and of what lies below it. Rules on changes have nothing to compare with."""
    if value is None:
        return
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" in rule["rule"]:
            continue
        if not compiled(rule["rule"]).evaluate({"self": celpy.adapter.json_to_cel(value)}):
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, Mapping):
        for name, below in value.items():
            if name in schema.get("properties", {}):
                yield from cel_problems(schema["properties"][name], below, f"{path}/{name}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from cel_problems(schema.get("items", {}), item, f"{path}/{i}")


class Schemas:
    """The schemas of a folder of CustomResourceDefinitions, as ``kubectl get crd NAME -o json`` prints them."""

    def __init__(self, folder: Path) -> None:
        self._raw: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._closed: dict[tuple[str, str], jsonschema.Draft202012Validator] = {}
        for path in sorted(folder.glob("*.json")):
            crd = json.loads(path.read_text())
            for version in crd["spec"]["versions"]:
                key = (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])
                schema = version["schema"]["openAPIV3Schema"]
                self._raw[key] = schema
                # Metadata belong to Kubernetes; the status is the operator's to write.
                properties = {k: v for k, v in schema["properties"].items() if k not in ("metadata", "status")}
                whole = closed({**schema, "properties": properties})
                whole["properties"]["metadata"] = {"type": "object"}
                self._closed[key] = jsonschema.Draft202012Validator(whole)

    @property
    def kinds(self) -> set[str]:
        return {kind for _, kind in self._raw}

    def problems(self, thing: Object) -> Iterator[str]:
        """What an API server with these schemas would say of one object."""
        key = (thing.get("apiVersion", ""), thing.get("kind", ""))
        if key in self._closed:
            for error in self._closed[key].iter_errors(thing):
                yield f"{named(thing)}: {'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
            for problem in cel_problems(self._raw[key], thing, ""):
                yield f"{named(thing)}: {problem}"
            # The same metadata on an object that Kubernetes knows.
            thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": thing.get("metadata", {})}
        try:
            kubernetes_validate.validate(thing, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{named(thing)}: {'/'.join(map(str, error.path))}: {error.message[:200]}"


# What this project asks of its pods


def pods(thing: Object) -> Iterator[tuple[str, Object]]:
    """Every pod template in an object, with its place."""
    if thing["kind"] in ("Deployment", "StatefulSet"):
        yield named(thing), thing["spec"]["template"]
    elif thing["kind"] == "RayJob":
        yield "submitter", thing["spec"]["submitterPodTemplate"]
        cluster = thing["spec"]["rayClusterSpec"]
        yield "head", cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield f"worker group {group['groupName']}", group["template"]


def container_problems(where: str, container: Object) -> Iterator[str]:
    """Resources that could be taken away, and what the Pod Security Standard `restricted` refuses."""
    resources, security = container.get("resources", {}), container.get("securityContext", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    if requests != limits or not {"cpu", "memory"} <= set(requests):
        yield f"{where}: requests {requests} and limits {limits} of CPU and memory must be equal"
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: may gain privileges"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{where}: keeps capabilities"


def pod_problems(where: str, pod: Object, claims: set[str], maps: set[str]) -> Iterator[str]:
    spec = pod["spec"]
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield f"{where}: may run as root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield f"{where}: has no seccomp profile"
    mounted = {volume["name"] for volume in spec.get("volumes", ())}
    for volume in spec.get("volumes", ()):
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim is not None and claim not in claims:
            yield f"{where}: no claim {claim}"
        config = volume.get("configMap", {}).get("name")
        if config is not None and config not in maps:
            yield f"{where}: no ConfigMap {config}"
        if "hostPath" in volume:
            yield f"{where}: mounts a path of its node"
    for container in spec["containers"]:
        yield from container_problems(f"{where}, container {container['name']}", container)
        tag = container["image"].rpartition(":")[2]
        if "/" in tag or tag == container["image"] or tag == "latest":
            yield f"{where}: image {container['image']} is not pinned"
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in mounted:
                yield f"{where}: no volume {mount['name']}"


def house_problems(things: Sequence[Object]) -> Iterator[str]:
    """What is wrong with a whole rendering beyond the schemas."""
    names = {kind: {t["metadata"]["name"] for t in things if t["kind"] == kind} for kind in {t["kind"] for t in things}}
    (namespace,) = names["Namespace"]
    policies = [t["spec"] for t in things if t["kind"] == "NetworkPolicy"]
    for thing in things:
        if thing["kind"] not in CLUSTER_WIDE and thing["metadata"].get("namespace") != namespace:
            yield f"{named(thing)}: is not in namespace {namespace}"
        own = {claim["metadata"]["name"] for claim in thing.get("spec", {}).get("volumeClaimTemplates", ())}
        for where, pod in pods(thing):
            # A claim made from a template is mounted under the template's name, without a volume.
            volumes = [*pod["spec"].get("volumes", ()), *({"name": name} for name in own)]
            whole = {**pod, "spec": {**pod["spec"], "volumes": volumes}}
            yield from pod_problems(
                where, whole, names.get("PersistentVolumeClaim", set()), names.get("ConfigMap", set())
            )
            labels = pod.get("metadata", {}).get("labels", {})
            guarded = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels.items()]
            if not any("Ingress" in policy["policyTypes"] for policy in guarded):
                yield f"{where}: anyone may connect to it"
        if thing["kind"] == "RayJob" and thing["spec"]["rayClusterSpec"].get("enableInTreeAutoscaling"):
            yield from container_problems("autoscaler", thing["spec"]["rayClusterSpec"]["autoscalerOptions"])
