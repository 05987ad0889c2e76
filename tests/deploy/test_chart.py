"""The Helm chart: Helm accepts it, two Kubernetes versions accept its objects, and they are kustomize's."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from sidecar.config import variables
from tests.deploy.image import ROOT
from tests.deploy.manifests import Manifest, check_schemas, composed, render
from tools import version
from tools.package_chart import CHART, package

GATEWAY = "http://litellm.litellm.svc.cluster.local:4000"
CLUSTER: dict[str, Any] = {
    "replicas": 3,
    "database": {"existingSecret": "opencode-sidecar"},
    "autoscaling": {"enabled": True},
}
EVERYTHING: dict[str, Any] = {
    "gateway": {"url": GATEWAY},
    "image": {"digest": f"sha256:{'0' * 64}", "pullSecrets": [{"name": "registry"}]},
    "settings": {"SIDECAR_LOG_LEVEL": "debug", "SIDECAR_CHILD_DRAIN_SECONDS": 30},
    "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}],
    "replicas": 3,
    "database": {"existingSecret": "database"},
    "workspace": {"mode": "shared", "shared": {"storageClass": "nfs"}},
    "autoscaling": {"enabled": True, "maxReplicas": 5, "turnsPerPod": 4},
    "persistence": {"storageClass": "fast", "accessMode": "ReadWriteOnce"},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "a"},
    "nodeSelector": {"kubernetes.io/arch": "arm64"},
    "tolerations": [{"key": "agents", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "networkPolicy": {
        "dns": ["kube-dns", "openshift", "nodelocal"],
        "egressInternet": True,
        "extraEgress": [{"to": [{"podSelector": {}}]}],
        "extraIngressFrom": [{"podSelector": {"matchLabels": {"a": "b"}}}],
    },
    "metrics": {
        "enabled": True,
        "monitor": "ServiceMonitor",
        "prometheusRule": True,
        "labels": {"release": "prometheus"},
    },
    "ingress": {"enabled": True, "host": "opencode.example.com", "tlsSecret": "tls"},
    "httpRoute": {
        "enabled": True,
        "parentRefs": [{"name": "public", "namespace": "gateway"}],
        "hostnames": ["opencode.example.com"],
        "gatewayNamespace": "gateway",
    },
    "lap": {"register": True},
}


def rendered(values: dict[str, Any], *, release: str = "opencode-sidecar") -> list[Manifest]:
    """Return the chart's objects. Raises helm_python.HelmError as `helm install` would refuse."""
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=release, namespace="opencode-sidecar")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return [item for text in texts for item in yaml.safe_load_all(text) if item]


def comparable(manifests: Sequence[Manifest]) -> dict[tuple[str, str], Manifest]:
    """Return objects by kind and name, without what only Helm or only kustomize has: labels of the release,
    the hash in the ConfigMap's name, hooks, the checksum, the Namespace."""

    def stripped(value: Any) -> Any:
        if isinstance(value, list):
            return [stripped(item) for item in value]
        if not isinstance(value, dict):
            return value
        dropped = {"app.kubernetes.io/instance", "app.kubernetes.io/version", "helm.sh/chart"}
        dropped |= {"app.kubernetes.io/managed-by", "checksum/settings", "imagePullPolicy"}
        dropped |= {"helm.sh/hook", "helm.sh/hook-delete-policy", "helm.sh/resource-policy"}
        kept = {key: stripped(item) for key, item in value.items() if key not in dropped}
        return {key: item for key, item in kept.items() if key != "annotations" or item}

    found = {}
    for manifest in manifests:
        if manifest["kind"] == "Namespace":
            continue
        item = stripped(copy.deepcopy(manifest))
        if item["kind"] == "ConfigMap":
            item["metadata"]["name"] = "opencode-sidecar"
        if item["kind"] == "StatefulSet":
            (container,) = item["spec"]["template"]["spec"]["containers"]
            for source in container["envFrom"]:
                source["configMapRef"]["name"] = "opencode-sidecar"
            container["env"].sort(key=lambda variable: variable["name"])
            container["ports"].sort(key=lambda port: port["name"])
            container["volumeMounts"].sort(key=lambda mount: mount["name"])
            item["spec"]["template"]["spec"]["volumes"].sort(key=lambda volume: volume["name"])
        name = item["metadata"]["name"].removeprefix("opencode-sidecar-lap-register")
        if item["metadata"]["name"].endswith("lap-register"):
            name = item["metadata"]["name"] = "lap-register"
        found[item["kind"], name] = item
    return found


def policies(objects: dict[tuple[str, str], Manifest], pod: str) -> dict[str, list[str]]:
    """Remove the policies that select a pod; return the union of their rules, as text, for each direction."""
    union: dict[str, list[str]] = {"ingress": [], "egress": []}
    for key, item in list(objects.items()):
        labels = item["spec"]["podSelector"]["matchLabels"] if key[0] == "NetworkPolicy" else {}
        agents = {"app.kubernetes.io/name": pod, "opencode-sidecar/runs-agents": "true"}
        agents["app.kubernetes.io/part-of"] = "opencode-sidecar"
        if labels and labels.items() <= agents.items():
            del objects[key]
            for direction, rules in union.items():
                rules += [yaml.safe_dump(rule) for rule in item["spec"].get(direction, ())]
    return {direction: sorted(rules) for direction, rules in union.items()}


def test_helm_finds_nothing() -> None:
    """`helm lint` has no error and no warning (an icon is only information)."""
    result = helm_python.lint(str(CHART))
    assert result["errors"] == []
    assert [item for item in result["messages"] if item["severity"] > 1] == []


@pytest.mark.parametrize(
    ("overlay", "components", "values"),
    [
        ("runtime-service", (), {}),
        ("lap-register", (), {"lap": {"register": True}}),
        (
            "runtime-service",
            ("dns-openshift", "egress-internet", "metrics", "prometheus-operator", "volume-rwo"),
            {
                "metrics": {"enabled": True, "monitor": "PodMonitor", "prometheusRule": True},
                "networkPolicy": {"dns": ["kube-dns", "openshift"], "egressInternet": True},
                "persistence": {"accessMode": "ReadWriteOnce"},
            },
        ),
        ("cluster", (), CLUSTER),
        ("cluster", ("workspace-shared",), {**CLUSTER, "workspace": {"mode": "shared"}}),
        (
            "cluster",
            ("workspace-archive",),
            {
                **CLUSTER,
                "workspace": {
                    "mode": "archive",
                    "archive": {
                        "url": "s3://opencode-sidecar/workspaces",
                        "endpoint": "http://s3.object-store.svc:9000",
                        "existingSecret": "opencode-sidecar",
                    },
                },
            },
        ),
    ],
    ids=["runtime-service", "lap-register", "components", "cluster", "shared", "archive"],
)
def test_the_chart_says_what_kustomize_says(
    overlay: str, components: tuple[str, ...], values: dict[str, Any], tmp_path: Path
) -> None:
    """The same objects with the same content; of network policies, the same sum."""
    ours = comparable(rendered({"gateway": {"url": GATEWAY}, **values}))
    theirs = comparable(render(composed(tmp_path, overlay, components)))
    assert policies(ours, "opencode-sidecar") == policies(theirs, "opencode-sidecar")
    assert ours == theirs


def test_both_kubernetes_versions_accept_everything_switched_on() -> None:
    """With every value set, the objects follow the schemas strictly."""
    check_schemas(rendered(EVERYTHING))
    check_schemas(rendered({}))


def test_every_value_has_an_effect() -> None:
    """No value is accepted that does nothing: each group that is set above changes what is rendered."""
    plain = yaml.safe_dump(rendered(EVERYTHING))
    for group, value in EVERYTHING.items():
        settings = value if isinstance(value, dict) and group not in FREE_FORM else {group: value}
        for name in settings:
            without = copy.deepcopy(EVERYTHING)
            if group in settings:
                del without[group]
            else:
                del without[group][name]
            without["replicas"] = 1 if group in {"replicas", "database"} else without["replicas"]
            try:
                changed = yaml.safe_dump(rendered(without)) != plain
            except helm_python.HelmError:
                changed = True  # it is needed by another one
            assert changed, f"{group}.{name}"


FREE_FORM = {"settings", "podAnnotations", "podLabels", "nodeSelector", "affinity"}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicas": 2}, "database.existingSecret"),
        ({"replica": 2}, "replica"),
        ({"image": {"tags": "1"}}, "tags"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"gateway": {"url": "litellm:4000"}}, "url"),
        ({"settings": {"RUNTIME_API_KEY": "in the open"}}, "RUNTIME_API_KEY"),
        ({"settings": {"DATABASE_URL": "postgres://"}}, "DATABASE_URL"),
        ({"existingSecret": ""}, "existingSecret"),
        ({"persistence": {"accessMode": "ReadWriteMany"}}, "accessMode"),
        ({"metrics": {"monitor": "PodMonitor"}}, "metrics.enabled"),
        ({"workspace": {"mode": "shared"}}, "database.existingSecret"),
        ({**CLUSTER, "workspace": {"mode": "nfs"}}, "mode"),
        ({**CLUSTER, "workspace": {"mode": "archive"}}, "workspace.archive.url"),
        ({**CLUSTER, "settings": {"SIDECAR_WORKSPACE": "shared"}}, "workspace.mode"),
        (
            {**CLUSTER, "workspace": {"mode": "shared"}, "settings": {"WORKDIR": "/w"}},
            "settings.WORKDIR",
        ),
        ({"autoscaling": {"enabled": True}}, "database.existingSecret"),
        ({**CLUSTER, "replicas": 11}, "autoscaling.maxReplicas"),
        ({"ingress": {"enabled": True}}, "ingress.host"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
        ({"lap": {"register": True, "alias": "a b"}}, "alias"),
        ({"terminationGracePeriodSeconds": 5}, "terminationGracePeriodSeconds"),
    ],
)
def test_a_wrong_value_is_refused(values: dict[str, Any], named: str) -> None:
    """Before anything is installed, with the name of the value."""
    with pytest.raises(helm_python.HelmError, match=named.replace(".", r"\.")):
        rendered(values)


def test_several_replicas_share_the_database() -> None:
    """With a database the Service is one runtime: every pod gets the URL, and LAP is given the Service."""
    values = {"replicas": 2, "database": {"existingSecret": "database"}, "lap": {"register": True}}
    objects = {item["kind"]: item for item in rendered(values)}
    (container,) = objects["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item for item in container["env"]}
    for name in ("DATABASE_URL", "SIDECAR_CLUSTER_KEY", "SIDECAR_VAULT_KEY"):
        assert environment[name]["valueFrom"]["secretKeyRef"]["name"] == "database"
    (port,) = [item for item in container["ports"] if item["name"] == "peers"]
    assert environment["SIDECAR_CLUSTER_PORT"]["value"] == str(port["containerPort"])
    assert set(environment) <= {name for _, name, _ in variables()}
    (policy,) = [
        item["spec"]
        for item in rendered(values)
        if item["kind"] == "NetworkPolicy" and item["metadata"]["name"] == "opencode-sidecar"
    ]
    for rules in (policy["ingress"], policy["egress"]):
        assert [rule for rule in rules if rule["ports"][0]["port"] == "peers"]
    assert [rule for rule in policy["egress"] if rule["ports"][0]["port"] == 5432]
    (register,) = objects["Job"]["spec"]["template"]["spec"]["containers"]
    base = {item["name"]: item.get("value") for item in register["env"]}["RUNTIME_API_BASE"]
    assert base == "http://opencode-sidecar.$(POD_NAMESPACE).svc:8080"


def test_a_bucket_outside_of_the_cluster() -> None:
    """By its addresses, without keys (the pod's role), with a time of its own for the upload."""
    archive = {"url": "s3://b/f", "cidrs": ["203.0.113.0/24"], "port": 443, "timeoutSeconds": 90}
    values = {**CLUSTER, "workspace": {"mode": "archive", "archive": archive}}
    objects = {(item["kind"], item["metadata"]["name"]): item for item in rendered(values)}
    pod = objects["StatefulSet", "opencode-sidecar"]["spec"]["template"]["spec"]
    environment = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    archived = {name for name in environment if name.startswith("SIDECAR_ARCHIVE_")}
    assert archived == {"SIDECAR_ARCHIVE_URL", "SIDECAR_ARCHIVE_TIMEOUT_SECONDS"}
    assert environment["SIDECAR_ARCHIVE_TIMEOUT_SECONDS"] == "90"
    assert pod["terminationGracePeriodSeconds"] == 45 + 90
    (rule,) = [
        rule
        for rule in objects["NetworkPolicy", "opencode-sidecar"]["spec"]["egress"]
        if {"port": 443, "protocol": "TCP"} in rule["ports"]
    ]
    assert rule["to"] == [{"ipBlock": {"cidr": "203.0.113.0/24"}}]


def test_a_claim_of_ones_own() -> None:
    """It is mounted, and the chart makes none."""
    shared = {"mode": "shared", "shared": {"existingClaim": "files"}}
    objects = rendered({**CLUSTER, "workspace": shared})
    assert "PersistentVolumeClaim" not in {item["kind"] for item in objects}
    (stateful,) = [item for item in objects if item["kind"] == "StatefulSet"]
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in stateful["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == ["files"]


def test_two_releases_live_in_one_namespace() -> None:
    """Names and selectors contain the release."""
    first, second = (
        rendered({"gateway": {"url": GATEWAY}, "lap": {"register": True}}, release=release)
        for release in ("one", "two")
    )
    names = [
        {(item["kind"], item["metadata"]["name"]) for item in found} for found in (first, second)
    ]
    assert not names[0] & names[1]
    for item in first:
        selector = item.get("spec", {}).get("selector") or item.get("spec", {}).get("podSelector")
        if selector:
            assert selector.get("matchLabels", selector)["app.kubernetes.io/instance"] == "one"


def test_without_a_gateway_nothing_is_asked_of_one() -> None:
    """The demo: neither the key nor the address of a gateway, and no way out to one."""
    text = yaml.safe_dump(rendered({}))
    assert "LITELLM" not in text
    assert "litellm" not in text


def test_the_package_names_the_released_image(tmp_path: Path) -> None:
    """The released chart is one file whose default image is the one that was pushed."""
    package(tmp_path, "ghcr.io/somebody/opencode-sidecar")
    archive = tmp_path / f"opencode-sidecar-{version.current()}.tgz"
    with helm_python.Chart.load(str(archive)) as chart:
        files = chart.render({}, name="a", namespace="b")
    (text,) = [text for path, text in files.items() if path.endswith("statefulset.yaml")]
    assert f"ghcr.io/somebody/opencode-sidecar:{version.current()}" in text


def test_the_alerts_are_those_of_the_folder() -> None:
    """A chart can only read its own files, so it has a copy."""
    alerts = ROOT / "deploy" / "observability" / "alerts.yaml"
    assert (CHART / "alerts.yaml").read_text() == alerts.read_text(), "python tools/wrap_alerts.py"


def test_one_version_everywhere(tmp_path: Path) -> None:
    """Package, program, chart and overlays say the version of pyproject.toml; another is noticed."""
    done = subprocess.run(
        [sys.executable, "tools/version.py", "--check"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "sidecar").mkdir()
    program = tmp_path / "sidecar" / "__init__.py"
    program.write_text('__version__ = "0.0.1"\n')
    root, version.ROOT = version.ROOT, tmp_path
    try:
        assert version.differing() == ["sidecar/__init__.py: 0.0.1"]
        version.write("1.2.4")
        assert program.read_text() == '__version__ = "1.2.4"\n'
        assert version.current() == "1.2.4"
    finally:
        version.ROOT = root
