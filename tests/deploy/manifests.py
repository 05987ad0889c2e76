"""Reads the Kubernetes manifests: rendered overlays, their pods and containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy import custom_resources
from tests.deploy.image import ROOT

OVERLAYS = ROOT / "deploy" / "k8s" / "overlays"
NAMES = ("attached", "cluster", "lap-register", "pod-sidecar", "runtime-service")
VERSIONS = ("1.30", "1.37")
"""The oldest that has all that is used (the sleep of preStop), and the newest whose schema is at hand."""
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

Manifest = dict[str, Any]


@cache
def render(overlay: str) -> tuple[Manifest, ...]:
    """Return the overlay's objects."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.fail("kubectl is needed to render the manifests: install it, or run this in CI")
    command = [kubectl, "kustomize", str(OVERLAYS / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str) -> list[Manifest]:
    """Return the overlay's objects of a kind."""
    return [manifest for manifest in render(overlay) if manifest["kind"] == kind]


def pods(overlay: str) -> Iterator[Manifest]:
    """Yield the pod templates."""
    for manifest in render(overlay):
        if "template" in manifest.get("spec", {}):
            yield manifest["spec"]["template"]


def containers(pod: Manifest) -> list[Manifest]:
    """Return all containers of a pod."""
    found: list[Manifest] = pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
    return found


def sidecar_of(overlay: str) -> tuple[Manifest, Manifest]:
    """Return (pod, container) of the sidecar."""
    ((pod, container),) = [
        (pod, item)
        for pod in pods(overlay)
        for item in containers(pod)
        if item["name"] == "sidecar"
    ]
    return pod, container


def quantity(text: str) -> int:
    """Return bytes."""
    return int(text[:-2]) * UNITS[text[-2:]]


def composed(
    folder: Path, overlay: str, components: Sequence[str], *, namespace: str | None = None
) -> str:
    """Write a kustomization of an overlay with components, as a user does; return what `render` takes."""

    def relative(path: Path) -> str:
        return os.path.relpath(path, folder.resolve())

    lines: dict[str, Any] = {
        "resources": [relative(OVERLAYS / overlay)],
        "components": [relative(OVERLAYS.parent / "components" / name) for name in components],
    }
    if namespace is not None:
        lines["namespace"] = namespace
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(lines))
    return str(folder)


def check_schemas(manifests: Iterable[Manifest]) -> None:
    """Hold objects against each version's schemas, custom resources against their definitions, strictly."""
    for manifest in manifests:
        group, _, _ = manifest["apiVersion"].rpartition("/")
        if group in custom_resources.GROUPS:
            custom_resources.validate(manifest)
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)
