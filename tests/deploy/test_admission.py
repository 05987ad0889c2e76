"""What a real API server says of the manifests, with the restricted level of PodSecurity enforced."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.deploy import custom_resources
from tests.deploy.cluster_api import ClusterApi, cluster_api
from tests.deploy.manifests import NAMES, OVERLAYS, Manifest, render
from tests.deploy.test_chart import EVERYTHING, rendered

pytestmark = [pytest.mark.admission, pytest.mark.timeout(7200)]
_NAMESPACE = "opencode-sidecar"
_PRIORITY = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": EVERYTHING["priorityClassName"]},
    "value": 1000,
}
"""What the chart's values refer to and a cluster has."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterApi]:
    """An API server that knows the custom resources and has the namespace."""
    with cluster_api(tmp_path_factory.mktemp("api")) as api:
        definitions = list(custom_resources.definitions())
        status, said = api.apply(definitions)
        assert status == 0, said
        for definition in definitions:
            api.wait("--for=condition=Established", f"crd/{definition['metadata']['name']}")
        status, said = api.apply([*_namespace(), _PRIORITY])
        assert status == 0, said
        yield api


def _namespace() -> list[Manifest]:
    return [item for item in render("runtime-service") if item["kind"] == "Namespace"]


def _pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Yield a pod of each template: of a controller's template the server only warns."""
    for manifest in manifests:
        spec = manifest.get("spec", {})
        template = spec.get("template") or spec.get("jobTemplate", {}).get("spec", {}).get(
            "template"
        )
        if template:
            pod = copy.deepcopy(template)
            pod |= {"apiVersion": "v1", "kind": "Pod"}
            name = f"{manifest['metadata']['name']}-pod"
            pod["metadata"] = {**pod.get("metadata", {}), "name": name, "namespace": _NAMESPACE}
            # As the controller of StatefulSets does.
            for claim in spec.get("volumeClaimTemplates", ()):
                volume = claim["metadata"]["name"]
                source = {"claimName": f"{volume}-{name}"}
                pod["spec"].setdefault("volumes", []).append(
                    {"name": volume, "persistentVolumeClaim": source}
                )
            yield pod


def _kubernetes(name: str) -> list[Manifest]:
    if name == "chart":
        return rendered(EVERYTHING)
    if name in NAMES:
        return list(render(name))
    return list(yaml.safe_load_all((OVERLAYS.parent / "examples" / f"{name}.yaml").read_text()))


@pytest.mark.parametrize(
    "name",
    [*NAMES, "chart", *sorted(path.stem for path in (OVERLAYS.parent / "examples").iterdir())],
)
def test_everything_is_admitted(api: ClusterApi, name: str) -> None:
    """Each object is stored, and each template's pod is allowed in the namespace."""
    manifests = _kubernetes(name)
    objects = [item for item in manifests if item["kind"] != "Namespace"] + list(_pods(manifests))
    status, said = api.apply(objects)
    assert status == 0, said
    assert "would violate PodSecurity" not in said
    api.delete(objects)


@pytest.mark.parametrize(
    "change",
    [
        {"allowPrivilegeEscalation": True},
        {"capabilities": {"add": ["SYS_ADMIN"]}},
        {"runAsUser": 0},
    ],
    ids=["escalation", "a capability", "root"],
)
def test_the_namespace_refuses_more(api: ClusterApi, change: dict[str, Any]) -> None:
    """The level is really enforced: the same pod with more rights is forbidden."""
    pod = next(_pods(list(render("runtime-service"))))
    pod["metadata"]["name"] = "more-rights"
    pod["spec"]["containers"][0]["securityContext"] |= change
    status, said = api.apply([pod])
    assert status != 0
    assert "violates PodSecurity" in said
