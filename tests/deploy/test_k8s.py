"""The Kubernetes manifests: they render, two Kubernetes versions accept them, and they keep the rules."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from sidecar.config import ChildSettings, variables
from sidecar.http.middleware import PUBLIC_PATHS
from sidecar.opencode import boot_process
from tests.deploy.image import PREFIX, ROOT, read_stages
from tests.deploy.manifests import (
    NAMES,
    OVERLAYS,
    VERSIONS,
    containers,
    of_kind,
    pods,
    quantity,
    render,
    sidecar_of,
)

HTTP_SHUTDOWN_SECONDS = 5.0
"""What sidecar/app.py gives open connections when it stops."""


def test_every_overlay_is_known() -> None:
    """The names above are what is there."""
    assert {path.name for path in OVERLAYS.iterdir()} == set(NAMES)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", NAMES)
def test_kubernetes_accepts_the_objects(overlay: str, version: str) -> None:
    """Each object follows the version's schema, and has no field that the schema does not know."""
    for manifest in render(overlay):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("overlay", NAMES)
def test_pods_are_restricted(overlay: str) -> None:
    """Every container meets the Pod Security Standard `restricted`, and its file system is read-only."""
    found = list(pods(overlay))
    assert found
    for pod in found:
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        user = int(read_stages()[-1].only("USER").text.split(":")[0])
        assert context["runAsUser"] == context["runAsGroup"] == user
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod["spec"])
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        for volume in pod["spec"].get("volumes", ()):
            assert set(volume) == {"name", "emptyDir"}
            assert volume["emptyDir"]["sizeLimit"]
    (namespace,) = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", NAMES)
def test_agents_find_no_cluster_credentials(overlay: str) -> None:
    """No token is mounted, neither by the pod nor by its account, and no role is bound."""
    accounts = {item["metadata"]["name"]: item for item in of_kind(overlay, "ServiceAccount")}
    for pod in pods(overlay):
        account = accounts[pod["spec"]["serviceAccountName"]]
        assert account["automountServiceAccountToken"] is False
        assert pod["spec"]["automountServiceAccountToken"] is False
    assert not any(of_kind(overlay, kind) for kind in ("Role", "ClusterRole", "RoleBinding"))


@pytest.mark.parametrize("overlay", NAMES)
def test_the_cluster_adds_no_variables(overlay: str) -> None:
    """Service links would set OPENCODE_PORT for a Service named opencode, and SIDECAR_* for one named
    sidecar, which stops the start."""
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods(overlay))


@pytest.mark.parametrize("overlay", NAMES)
def test_secrets_come_by_reference(overlay: str) -> None:
    """Nothing named like a key or a token has its value in the manifests, which hold no Secret."""
    assert not of_kind(overlay, "Secret")
    literals = [item["data"] for item in of_kind(overlay, "ConfigMap")]
    assert not [name for data in literals for name in data if "KEY" in name or "TOKEN" in name]
    for pod in pods(overlay):
        for container in containers(pod):
            for variable in container.get("env", ()):
                if "KEY" in variable["name"]:
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}


@pytest.mark.parametrize("overlay", NAMES)
def test_the_settings_are_known(overlay: str) -> None:
    """Every variable for the sidecar is one of its settings; every object's ConfigMap is there."""
    known = {name for _, name, _ in variables()}
    _, container = (
        sidecar_of("runtime-service") if overlay == "lap-register" else sidecar_of(overlay)
    )
    maps = {item["metadata"]["name"]: item["data"] for item in of_kind(overlay, "ConfigMap")}
    named = {item["name"] for item in container["env"]}
    for source in container["envFrom"]:
        named |= set(maps[source["configMapRef"]["name"]])
    assert {"RUNTIME_API_KEY", "LITELLM_API_KEY", "LITELLM_BASE_URL"} <= named <= known


@pytest.mark.parametrize("overlay", NAMES)
def test_every_pod_is_behind_a_policy(overlay: str) -> None:
    """A NetworkPolicy for both directions selects each pod, and none lets everything out."""
    policies = [item["spec"] for item in of_kind(overlay, "NetworkPolicy")]
    for pod in pods(overlay):
        labels = pod["metadata"]["labels"].items()
        selecting = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels]
        assert {kind for p in selecting for kind in p["policyTypes"]} == {"Ingress", "Egress"}
    assert all(rule["to"] and rule["ports"] for p in policies for rule in p["egress"])
    assert all(rule["ports"] for p in policies for rule in p.get("ingress", ()))


@pytest.mark.parametrize("overlay", ["pod-sidecar", "runtime-service"])
def test_the_probes_ask_the_right_questions(overlay: str) -> None:
    """Start, life and readiness each ask their own endpoint, which needs no key."""
    _, container = sidecar_of(overlay)
    for probe, path in (
        ("startupProbe", "/startupz"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ):
        action = container[probe].get("httpGet") or container[probe]["exec"]
        assert path in (action.get("path"), action.get("command", [""])[-1])
        assert path in PUBLIC_PATHS


def test_probes_can_reach_a_loopback_sidecar() -> None:
    """The pod's sidecar listens on loopback, so its probes are commands: those of the image."""
    _, container = sidecar_of("pod-sidecar")
    assert {"name": "HOST", "value": "127.0.0.1"} in container["env"]
    copied = {word for stage in read_stages() for c in stage.all("COPY") for word in c.words}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        *interpreter, script, _path = container[probe]["exec"]["command"]
        assert interpreter == [f"{PREFIX}/venv/bin/python", "-I", "-S"]
        assert f"deploy/image/{Path(script).name}" in copied


def test_the_application_starts_after_and_stops_before_the_sidecar() -> None:
    """The sidecar is a native one: an init container that stays, with a startup probe."""
    pod, container = sidecar_of("pod-sidecar")
    assert container in pod["spec"]["initContainers"]
    assert container["restartPolicy"] == "Always"
    assert "startupProbe" in container
    (application,) = pod["spec"]["containers"]
    environment = {item["name"]: item.get("value") for item in application["env"]}
    assert environment["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8080"


@pytest.mark.parametrize("overlay", ["pod-sidecar", "runtime-service"])
def test_the_grace_period_covers_the_whole_stop(overlay: str) -> None:
    """preStop, drain, HTTP shutdown, and the child's dispose and SIGTERM fit in, with 5 s to spare."""
    pod, container = sidecar_of(overlay)
    pre_stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    bounds = (
        pre_stop,
        ChildSettings.model_fields["drain_seconds"].default,
        HTTP_SHUTDOWN_SECONDS,
        boot_process._DISPOSE_TIMEOUT_SECONDS,
        boot_process._TERM_GRACE_SECONDS,
    )
    assert pod["spec"]["terminationGracePeriodSeconds"] >= sum(bounds) + 5


@pytest.mark.parametrize("overlay", ["pod-sidecar", "runtime-service"])
def test_memory_is_enough_for_what_is_allowed(overlay: str) -> None:
    """Two opencodes fit, each as large as one may be before it is replaced, and the sidecar's own 100 MB."""
    _, container = sidecar_of(overlay)
    resources = container["resources"]
    allowed = 2 * ChildSettings.model_fields["max_rss_bytes"].default + 100_000_000
    assert quantity(resources["limits"]["memory"]) > allowed
    assert quantity(resources["requests"]["memory"]) >= 750_000_000  # measured, see docs/deploy.md
    assert "cpu" not in resources["limits"]


def test_an_attached_opencode_stops_last_and_has_no_key_of_ours() -> None:
    """It is a native sidecar on the same volume, in the same process namespace, and big enough; secrets that
    it has no use for are not in its container."""
    pod, sidecar = sidecar_of("attached")
    assert pod["spec"]["shareProcessNamespace"] is True
    child_env, opencode = pod["spec"]["initContainers"]
    assert opencode["restartPolicy"] == "Always"
    assert sidecar in pod["spec"]["containers"]
    assert all(mount in opencode["volumeMounts"] for mount in sidecar["volumeMounts"])
    assert not {"env", "envFrom"} & set(opencode)
    assert all(item in sidecar["env"] for item in child_env["env"])
    limit = quantity(opencode["resources"]["limits"]["memory"])
    assert limit > ChildSettings.model_fields["max_rss_bytes"].default


def test_what_is_durable_is_on_the_volume() -> None:
    """The runtime's DATA_DIR is a claim of its own for each pod, kept when the set is deleted."""
    (stateful,) = of_kind("runtime-service", "StatefulSet")
    pod, container = sidecar_of("runtime-service")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = [claim["metadata"]["name"] for claim in stateful["spec"]["volumeClaimTemplates"]]
    data_dir = dict(
        word.split("=", 1) for item in read_stages()[-1].all("ENV") for word in item.words
    )["DATA_DIR"]
    assert claims == [mounts[data_dir]]
    assert set(mounts) == {data_dir, "/tmp"}
    assert stateful["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    assert pod["spec"]["securityContext"]["fsGroup"] == 10001


def test_services_and_budget_select_the_pods() -> None:
    """Headless and plain Service and the budget select what the StatefulSet makes; each pod has a name."""
    (stateful,) = of_kind("runtime-service", "StatefulSet")
    labels = stateful["spec"]["template"]["metadata"]["labels"].items()
    by_name = {
        item["metadata"]["name"]: item["spec"] for item in of_kind("lap-register", "Service")
    }
    assert by_name[stateful["spec"]["serviceName"]]["clusterIP"] == "None"
    assert len(by_name) == 2
    for spec in by_name.values():
        assert spec["selector"].items() <= labels
        assert [port["targetPort"] for port in spec["ports"]] == ["http"]
    (budget,) = of_kind("runtime-service", "PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels


def test_the_job_registers_the_pods_own_address() -> None:
    """LAP is given the name of pod 0, the key is the sidecar's, and the policy lets the job through."""
    ((job, container),) = [
        (pod, item)
        for pod in pods("lap-register")
        for item in containers(pod)
        if item["name"] == "register"
    ]
    environment = {item["name"]: item for item in container["env"]}
    (stateful,) = of_kind("lap-register", "StatefulSet")
    name, service = stateful["metadata"]["name"], stateful["spec"]["serviceName"]
    assert environment["RUNTIME_API_BASE"]["value"] == (
        f"http://{name}-0.{service}.$(POD_NAMESPACE).svc:8080"
    )
    names = [item["name"] for item in container["env"]]
    assert names.index("POD_NAMESPACE") < names.index("RUNTIME_API_BASE"), "expanded in order"
    _, sidecar = sidecar_of("lap-register")
    assert environment["RUNTIME_API_KEY"] in sidecar["env"]
    (policy,) = [
        item["spec"]
        for item in of_kind("lap-register", "NetworkPolicy")
        if item["metadata"]["name"] == name
    ]
    (allowed, _) = policy["ingress"][0]["from"]
    assert allowed["podSelector"]["matchLabels"].items() <= job["metadata"]["labels"].items()


def test_the_render_blueprint_fits_the_image() -> None:
    """Render builds the Dockerfile, keeps DATA_DIR on its disk, asks /readyz, and sets known settings."""
    (service,) = yaml.safe_load((ROOT / "deploy" / "render.yaml").read_text())["services"]
    assert (ROOT / service["dockerfilePath"]).is_file()
    assert (ROOT / service["dockerContext"]).resolve() == ROOT
    assert service["healthCheckPath"] in PUBLIC_PATHS
    environment = {item["key"]: item for item in service["envVars"]}
    assert environment["DATA_DIR"]["value"] == service["disk"]["mountPath"]
    assert set(environment) <= {name for _, name, _ in variables()}
    assert all("value" not in item for name, item in environment.items() if name.endswith("_KEY"))
