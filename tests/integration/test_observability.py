"""Dashboard, alert rules and documentation name the metrics that there are, and all of those."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config import ArchiveSettings
from sidecar.demo_gateway import DemoGateway
from sidecar.metrics import PREFIX
from tests.fakes.small_sidecar import small_settings
from tests.harness import GATEWAY_KEY, http_client, sidecar_for
from tests.postgres import PostgresCluster
from tests.stores import on_postgres
from tests.waiting import until

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/observability/dashboard.json"
ALERTS = ROOT / "deploy/observability/alerts.yaml"
RUNBOOK = ROOT / "docs/operations.md"
NAME = re.compile(rf"\b({PREFIX}_[a-z_]+|process_[a-z_]+)\b")
SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
    "gauge": ("",),
}


@pytest.fixture(scope="module")
async def families(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresCluster
) -> dict[str, str]:
    """The type of each exported family, by name, of a sidecar with all that there is to measure."""
    directory = tmp_path_factory.mktemp("families")
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    settings = on_postgres(small_settings(directory, gateway.url), postgres)
    archived = {
        "cluster": settings.cluster.model_copy(update={"workspace": "archive"}),
        "archive": ArchiveSettings(url=(directory / "archives").as_uri()),
    }
    settings = settings.model_copy(update=archived)
    async with sidecar_for(settings) as sidecar:
        assert sidecar.admin_url is not None
        async with http_client(sidecar.admin_url, None) as http:

            async def with_vitals() -> str:
                async with http.get("/metrics") as answer:
                    text = await answer.text()
                    return text if f"{PREFIX}_child_cpu_seconds" in text else ""

            text = await until(with_vitals)
    await gateway.close()
    found = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    return {
        name.removesuffix("_total"): kind for name, kind in found if not name.endswith("_created")
    }


def samples(families: dict[str, str]) -> set[str]:
    """Return the names that a query may use."""
    return {name + suffix for name, kind in families.items() for suffix in SUFFIXES[kind]}


def expressions(panels: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the queries of a dashboard's panels."""
    for panel in panels:
        yield from (target["expr"] for target in panel.get("targets", []))
        yield from expressions(panel.get("panels", []))


def test_the_dashboard_asks_only_for_what_is_exported(families: dict[str, str]) -> None:
    """Each query of the dashboard names exported samples, and each panel has one."""
    dashboard = json.loads(DASHBOARD.read_text())
    queries = list(expressions(dashboard["panels"]))
    asked = {name for query in queries for name in NAME.findall(query)}
    assert len(queries) > 30
    assert asked <= samples(families), asked - samples(families)
    assert all(NAME.search(query) for query in queries)


def test_the_alerts_ask_only_for_what_is_exported(families: dict[str, str]) -> None:
    """Each rule names exported samples and a part of the runbook that exists."""
    rules = [r for g in yaml.safe_load(ALERTS.read_text())["groups"] for r in g["rules"]]
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-") for text in headings}
    for rule in rules:
        asked = set(NAME.findall(rule["expr"]))
        assert asked, rule["alert"]
        assert asked <= samples(families), (rule["alert"], asked - samples(families))
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert file == "docs/operations.md"
        assert anchor in anchors, (rule["alert"], anchor)


def test_every_metric_is_documented(families: dict[str, str]) -> None:
    """The table in docs/operations.md has each of our families once, with its type, and no other."""
    rows = re.findall(rf"^\| `({PREFIX}_[a-z_]+)` \| (\w+) \|", RUNBOOK.read_text(), re.M)
    ours = {name: kind for name, kind in families.items() if name.startswith(PREFIX)}
    exported = {name + "_total" if kind == "counter" else name: kind for name, kind in ours.items()}
    assert len(rows) == len(dict(rows))
    assert dict(rows) == exported


def test_names_follow_the_conventions(families: dict[str, str]) -> None:
    """Base units only, and a unit or a plural noun at the end."""
    for name in families:
        assert not re.search(r"_(ms|milliseconds|minutes|mb|kb|percent)(_|$)", name), name
