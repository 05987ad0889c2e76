"""Components and examples: what an overlay is made of beyond its base, in any namespace."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sidecar.config import variables
from sidecar.config.listeners import HttpSettings
from tests.deploy import custom_resources
from tests.deploy.image import ROOT
from tests.deploy.manifests import (
    NAMES,
    OVERLAYS,
    Manifest,
    check_schemas,
    composed,
    containers,
    of_kind,
    pods,
    render,
    sidecar_of,
)
from tools.wrap_alerts import TARGET, wrapped

COMPONENTS = OVERLAYS.parent / "components"
EXAMPLES = OVERLAYS.parent / "examples"
WITH_A_STATEFUL_SET = ("attached", "lap-register", "runtime-service")
METRICS = "metrics"
EVERY_POD = {"dns-nodelocal", "dns-openshift"}
AGENTS_ONLY = {"egress-internet", "gateway-external"}
SETS_ONLY = {METRICS, "prometheus-operator", "volume-rwo"}
WORKSPACES = {"workspace-archive": "archive", "workspace-shared": "shared"}
"""Where files are, of overlays/cluster; one of them."""


def policy_of(manifests: tuple[Manifest, ...], name: str) -> dict[str, Any]:
    """Return the spec of the policy that a component adds."""
    ((spec),) = [
        item["spec"]
        for item in manifests
        if item["kind"] == "NetworkPolicy"
        and item["metadata"]["name"] == f"opencode-sidecar-{name}"
    ]
    return spec


def selected(overlay: str, policy: dict[str, Any]) -> set[str]:
    """Return the names of the pods that a policy selects."""
    wanted = policy["podSelector"]["matchLabels"].items()
    labels = [pod["metadata"]["labels"] for pod in pods(overlay)]
    return {item["app.kubernetes.io/name"] for item in labels if wanted <= item.items()}


def test_every_component_is_known() -> None:
    """The names above are what is there."""
    known = EVERY_POD | AGENTS_ONLY | SETS_ONLY | WORKSPACES.keys()
    assert {path.name for path in COMPONENTS.iterdir()} == known


@pytest.mark.parametrize("name", WORKSPACES)
def test_a_cluster_whose_sessions_move(name: str, tmp_path: Path) -> None:
    """Files are where every pod gets them, so pods may go: the autoscaler scales in, one by one."""
    chosen = composed(tmp_path, "cluster", [name], namespace="team-a")
    manifests = render(chosen)
    check_schemas(manifests)
    _, sidecar = sidecar_of(chosen)
    env = {item["name"]: item for item in sidecar["env"]}
    assert env["SIDECAR_WORKSPACE"]["value"] == WORKSPACES[name]
    known = {variable for _, variable, _ in variables()} | {"WORKDIR"}
    assert {n for n in env if n.startswith("SIDECAR_")} <= known
    (autoscaler,) = of_kind(chosen, "HorizontalPodAutoscaler")
    assert "selectPolicy" not in autoscaler["spec"]["behavior"]["scaleDown"]
    if name == "workspace-shared":
        (claim,) = of_kind(chosen, "PersistentVolumeClaim")
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        mounts = {item["name"]: item["mountPath"] for item in sidecar["volumeMounts"]}
        assert mounts["workspaces"] == env["WORKDIR"]["value"]
    else:
        (rule,) = policy_of(manifests, name)["egress"]
        assert env["SIDECAR_ARCHIVE_ENDPOINT"]["value"].endswith(f":{rule['ports'][0]['port']}")


@pytest.mark.parametrize("overlay", NAMES)
def test_all_components_go_together_in_another_namespace(overlay: str, tmp_path: Path) -> None:
    """Every component that fits the overlay can be added at once; no object stays behind, and none names
    the usual namespace."""
    names = EVERY_POD | AGENTS_ONLY | (SETS_ONLY if overlay in WITH_A_STATEFUL_SET else set())
    manifests = render(composed(tmp_path, overlay, sorted(names), namespace="team-a"))
    check_schemas(manifests)
    for manifest in manifests:
        place = manifest["metadata"].get("namespace", manifest["metadata"]["name"])
        assert place == "team-a", manifest["kind"]
        assert "opencode-sidecar.svc" not in yaml.safe_dump(manifest)


@pytest.mark.parametrize("overlay", NAMES)
@pytest.mark.parametrize("name", sorted(EVERY_POD))
def test_names_are_resolved_by_every_pod(overlay: str, name: str, tmp_path: Path) -> None:
    """Registration needs names as much as agents do."""
    chosen = composed(tmp_path, overlay, [name])
    everyone = {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods(chosen)}
    policy = policy_of(render(chosen), name)
    assert selected(chosen, policy) == everyone
    (rule,) = policy["egress"]
    assert {port["protocol"] for port in rule["ports"]} == {"UDP", "TCP"}


@pytest.mark.parametrize("overlay", NAMES)
@pytest.mark.parametrize("name", sorted(AGENTS_ONLY))
def test_ways_out_are_for_agents(overlay: str, name: str, tmp_path: Path) -> None:
    """The pods in which agents run get them, and not the job that holds LAP's master key."""
    chosen = composed(tmp_path, overlay, [name])
    expected = "application" if overlay == "pod-sidecar" else "opencode-sidecar"
    assert selected(chosen, policy_of(render(chosen), name)) == {expected}


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The policy of egress-internet."""
    folder = tmp_path_factory.mktemp("internet")
    chosen = composed(folder, "runtime-service", ["egress-internet"])
    return policy_of(render(chosen), "egress-internet")


@pytest.mark.parametrize(
    ("address", "is_reached"),
    [
        *((address, True) for address in ("140.82.121.4", "1.1.1.1", "2606:50c0:8000::153")),
        *((address, False) for address in ("10.0.0.1", "172.31.255.255", "192.168.1.1")),
        *((address, False) for address in ("100.64.0.1", "169.254.169.254", "127.0.0.1")),
        *((address, False) for address in ("192.0.0.192", "fd00:ec2::254", "fe80::1", "::1")),
        *((address, False) for address in ("2002:a00:1::", "64:ff9b::a00:1", "224.0.0.1")),
    ],
)
def test_the_internet_is_what_is_public(
    address: str, is_reached: bool, internet: dict[str, Any]
) -> None:
    """Public addresses on 443 and 80; never a private range, the node, or a cloud's metadata."""
    (rule,) = internet["egress"]
    assert {port["port"] for port in rule["ports"]} == {443, 80}
    blocks = [block["ipBlock"] for block in rule["to"]]
    target = ipaddress.ip_address(address)
    assert is_reached == any(
        target in ipaddress.ip_network(block["cidr"])
        and not any(target in ipaddress.ip_network(hole) for hole in block["except"])
        for block in blocks
    )


def test_a_gateway_outside_is_set_and_reached(tmp_path: Path) -> None:
    """The component sets the URL in the ConfigMap that the pods read, and opens its port."""
    chosen = composed(tmp_path, "runtime-service", ["gateway-external"])
    (settings,) = of_kind(chosen, "ConfigMap")
    _, container = sidecar_of(chosen)
    assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    assert settings["data"]["LITELLM_BASE_URL"].startswith("https://")
    (rule,) = policy_of(render(chosen), "gateway-external")["egress"]
    assert rule["ports"] == [{"port": 443, "protocol": "TCP"}]


@pytest.mark.parametrize("overlay", WITH_A_STATEFUL_SET)
def test_the_volume_can_be_read_write_once(overlay: str, tmp_path: Path) -> None:
    """For provisioners that are no CSI drivers; the rest of the claim stays."""
    claims = [
        of_kind(chosen, "StatefulSet")[0]["spec"]["volumeClaimTemplates"][0]["spec"]
        for chosen in (str(overlay), composed(tmp_path, overlay, ["volume-rwo"]))
    ]
    assert [claim.pop("accessModes") for claim in claims] == [
        ["ReadWriteOncePod"],
        ["ReadWriteOnce"],
    ]
    assert claims[0] == claims[1]


@pytest.mark.parametrize("overlay", WITH_A_STATEFUL_SET)
def test_metrics_can_be_opened_to_prometheus(overlay: str, tmp_path: Path) -> None:
    """The component opens the admin listener, with a key from the Secret, to one namespace; the operator's
    monitor asks that port with that key, and its rules are those of deploy/observability."""
    opened = composed(tmp_path, overlay, [METRICS, "prometheus-operator"])
    _, container = sidecar_of(opened)
    environment = {item["name"]: item for item in container["env"]}
    assert set(environment) <= {name for _, name, _ in variables()}
    (rule,) = policy_of(render(opened), METRICS)["ingress"]
    (port,) = [item for item in container["ports"] if item["name"] == rule["ports"][0]["port"]]
    assert environment["SIDECAR_ADMIN_PORT"]["value"] == str(port["containerPort"])

    (monitor,) = of_kind(opened, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == port["name"]
    key = environment["SIDECAR_ADMIN_KEY"]["valueFrom"]["secretKeyRef"]
    assert endpoint["authorization"]["credentials"] == key
    (stateful,) = of_kind(opened, "StatefulSet")
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()

    (rules,) = of_kind(opened, "PrometheusRule")
    alerts = ROOT / "deploy" / "observability" / "alerts.yaml"
    assert rules["spec"] == yaml.safe_load(alerts.read_text())
    assert TARGET.read_text() == wrapped(), "python tools/wrap_alerts.py"


def example(name: str) -> list[Manifest]:
    """Return an example's objects."""
    return list(yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.stem)
def test_examples_name_what_the_overlay_has(path: Path) -> None:
    """Services, the Secret and the volume's claim that an example refers to are those of runtime-service."""
    manifests = example(path.stem)
    check_schemas(manifests)
    assert all(item["metadata"]["namespace"] == "opencode-sidecar" for item in manifests)
    (stateful,) = of_kind("runtime-service", "StatefulSet")
    labels = stateful["spec"]["template"]["metadata"]["labels"].items()
    services = {item["metadata"]["name"]: item for item in of_kind("runtime-service", "Service")}
    found = False
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"].items() <= labels
        for rule in spec.get("rules", ()):
            for backend in rule.get("backendRefs", ()):
                ports = [port["port"] for port in services[backend["name"]]["spec"]["ports"]]
                found = backend["port"] in ports
            for way in rule.get("http", {}).get("paths", ()):
                service = way["backend"]["service"]
                ports = [port["name"] for port in services[service["name"]]["spec"]["ports"]]
                found = service["port"]["name"] in ports
        if manifest["kind"] == "ExternalSecret":
            read = {
                item["valueFrom"]["secretKeyRef"]["key"]
                for item in sidecar_of("runtime-service")[1]["env"]
            }
            found = {item["secretKey"] for item in spec["data"]} == read
        if manifest["kind"] == "ConfigMap":
            snapshot = yaml.safe_load(manifest["data"]["snapshot.yaml"])
            check_schemas([snapshot])
            claim = stateful["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
            name = f"{claim}-{stateful['metadata']['name']}-0"
            found = snapshot["spec"]["source"]["persistentVolumeClaimName"] == name
    assert found


@pytest.mark.parametrize(
    ("path", "wrong"),
    [("httproute", {"spec": {"rulez": []}}), ("externalsecret", {"spec": {"data": "all"}})],
)
def test_a_wrong_custom_resource_is_refused(path: str, wrong: dict[str, Any]) -> None:
    """An unknown field and a value of another type, as an API server with the definition would."""
    (resource, *_) = example(path)
    with pytest.raises(jsonschema.ValidationError):
        custom_resources.validate({**resource, "spec": {**resource["spec"], **wrong["spec"]}})


def test_the_ingress_lets_streams_last() -> None:
    """Nothing is buffered, silence may last longer than a heartbeat, and bodies may be as large as ours."""
    ingress = example("ingress")[0]
    prefix = "nginx.ingress.kubernetes.io/"
    settings = {
        name.removeprefix(prefix): value
        for name, value in ingress["metadata"]["annotations"].items()
    }
    assert settings["proxy-buffering"] == settings["proxy-request-buffering"] == "off"
    heartbeat = HttpSettings.model_fields["heartbeat_seconds"].default
    assert int(settings["proxy-read-timeout"]) > 2 * heartbeat
    limit = HttpSettings.model_fields["body_limit_bytes"].default
    assert int(settings["proxy-body-size"].removesuffix("m")) * 2**20 >= limit
    (route,) = example("httproute")
    assert {rule["timeouts"]["request"] for rule in route["spec"]["rules"]} == {"0s"}


def test_the_backup_may_only_make_snapshots() -> None:
    """Its pod is restricted like the others; its account can create snapshots and nothing else."""
    manifests = {item["kind"]: item for item in example("volumesnapshot")}
    assert {group for group in custom_resources.GROUPS if "snapshot" in group} == set(
        manifests["Role"]["rules"][0]["apiGroups"]
    )
    assert [rule["verbs"] for rule in manifests["Role"]["rules"]] == [["create"]]
    pod = manifests["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    assert pod["spec"]["serviceAccountName"] == manifests["ServiceAccount"]["metadata"]["name"]
    for container in containers(pod):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
