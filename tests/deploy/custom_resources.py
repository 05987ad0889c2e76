"""The schemas of custom resources, from the modules of the projects that define them.

A Go module is one zip file with a fixed content, which every module proxy serves, so it is pinned by hash. It
is kept in .cache/crds of the checkout.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import jsonschema
import yaml

from tests.deploy.image import ROOT

_CACHE = ROOT / ".cache" / "crds"
_DEFAULT_PROXY = "https://proxy.golang.org"
_DOWNLOAD_SECONDS = 120


@dataclass(frozen=True, slots=True)
class _Module:
    """A Go module, and the folder in it that holds the definitions as `<group>_<plural>.yaml`."""

    name: str
    version: str
    sha256: str
    folder: str


_MODULES = {
    "external-secrets.io": _Module(
        "github.com/external-secrets/external-secrets",
        "v1.3.2",
        "ff62f532fe5bbce8e749b41b46294ed6dddff86c9560c200c6304f7ef660e342",
        "config/crds/bases",
    ),
    "gateway.networking.k8s.io": _Module(
        "sigs.k8s.io/gateway-api",
        "v1.7.0",
        "f9041f93ad3b2572089afa858ceac74e0545e7769490ae774039ed0f841f3d6d",
        "config/crd/standard",
    ),
    "monitoring.coreos.com": _Module(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "0bdb88ed823d0f2e86cf909638439b6ad1da744a228172c7411d9987527dc5d1",
        "example/prometheus-operator-crd",
    ),
    "snapshot.storage.k8s.io": _Module(
        "github.com/kubernetes-csi/external-snapshotter/client/v8",
        "v8.7.0",
        "80422075c04c2a9b0ecba9e7da4074197297b103523de25359b6cb5353a7e86d",
        "config/crd",
    ),
}
GROUPS = frozenset(_MODULES)
"""The API groups whose definitions are known."""


class _Loader(yaml.CSafeLoader):
    """Reads a lone `=`, which definitions have in lists of operators, as a string."""


_Loader.add_constructor("tag:yaml.org,2002:value", yaml.SafeLoader.construct_yaml_str)


def validate(resource: dict[str, Any]) -> None:
    """Hold a custom resource against its definition; unknown fields are errors.

    Raises jsonschema.ValidationError, and LookupError when the definition has no such kind or version.
    """
    group, _, version = resource["apiVersion"].partition("/")
    jsonschema.validate(resource, _schema(group, version, resource["kind"]))


def definitions(groups: Iterable[str] = GROUPS, *, plural: str = "") -> Iterator[dict[str, Any]]:
    """Yield the CustomResourceDefinitions of the groups, as their projects publish them, or one of them."""
    for group in groups:
        module = _MODULES[group]
        with zipfile.ZipFile(_download(module)) as archive:
            inside = f"{module.name}@{module.version}/{module.folder}/{group}_{plural}"
            for name in archive.namelist():
                if name.startswith(inside):
                    for document in yaml.load_all(archive.read(name), _Loader):
                        if document["kind"] == "CustomResourceDefinition":
                            yield document


@cache
def _schema(group: str, version: str, kind: str) -> dict[str, Any]:
    for definition in definitions([group], plural=kind.lower()):
        spec = definition["spec"]
        if spec["names"]["kind"] != kind:
            continue
        for served in spec["versions"]:
            if served["name"] == version:
                schema: dict[str, Any] = served["schema"]["openAPIV3Schema"]
                _open_metadata(schema)
                _close(schema)
                return schema
    raise LookupError(f"{group}/{version} defines no {kind}")


def _open_metadata(schema: dict[str, Any]) -> None:
    """A definition leaves metadata to the API server, and shows nothing of it."""
    schema["properties"]["metadata"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }


def _close(schema: Any) -> None:
    """Make unknown fields an error, as `kubectl apply --validate=strict` does."""
    if isinstance(schema, list):
        for item in schema:
            _close(item)
    if not isinstance(schema, dict):
        return
    for value in schema.values():
        _close(value)
    is_open = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if (
        schema.get("type") == "object"
        and isinstance(schema.get("properties"), dict)
        and not is_open
    ):
        schema.setdefault("additionalProperties", False)
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and "(?i)" in pattern:  # Go's: Python takes flags at the start only
        schema["pattern"] = "(?i)" + pattern.replace("(?i)", "")
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("anyOf", None)
        schema["type"] = ["integer", "string"]


def _download(module: _Module) -> Any:
    """Return the path of the module's zip file. Raises AssertionError for one with another content."""
    path = _CACHE / f"{module.sha256}.zip"
    if not path.exists():
        proxy = os.environ.get("GOPROXY", _DEFAULT_PROXY).split(",")[0].split("|")[0]
        url = f"{proxy.rstrip('/')}/{module.name}/@v/{module.version}.zip"
        with urllib.request.urlopen(url, timeout=_DOWNLOAD_SECONDS) as response:
            content = response.read()
        found = hashlib.sha256(content).hexdigest()
        assert found == module.sha256, f"{url} has the hash {found}, not {module.sha256}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_bytes(content)
        path.with_suffix(".part").rename(path)
    return path
