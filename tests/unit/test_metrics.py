"""Labels stay few, and money and causes are counted right."""

import pytest
from prometheus_client import CollectorRegistry

from sidecar.gateway.merge import CatalogueEntry
from sidecar.instruments import cause, cost_usd, tokens
from sidecar.metrics import MAX_MODELS, OTHER, Metrics
from sidecar.model_requests import Usage

USAGE = Usage(
    input_tokens=100,
    output_tokens=10,
    cache_creation_input_tokens=20,
    cache_read_input_tokens=1000,
)


def make(known: set[str]) -> Metrics:
    """Return metrics over a catalogue with these models."""
    return Metrics(registry=CollectorRegistry(), is_known_model=known.__contains__)


def test_a_model_nobody_knows_is_other() -> None:
    """What a stranger writes into a request never becomes a label."""
    metrics = make({"vendor/known"})
    assert metrics.model_label("vendor/known") == "vendor/known"
    assert metrics.model_label("' OR 1=1") == OTHER
    metrics.tokens_used("invented", {"input": 3}, 0.0)
    assert f'model="{OTHER}"' in metrics.exposition().decode()
    assert "invented" not in metrics.exposition().decode()


def test_the_number_of_models_is_bounded() -> None:
    """Beyond the bound new models are `other`, those that have a label keep it, even when they vanish."""
    known = {f"m{number}" for number in range(MAX_MODELS + 5)}
    metrics = make(known)
    labels = {metrics.model_label(f"m{number}") for number in range(MAX_MODELS + 5)}
    assert len(labels) == MAX_MODELS + 1
    assert OTHER in labels
    known.clear()
    assert metrics.model_label("m0") == "m0"


def test_odd_methods_are_other() -> None:
    """A client's own HTTP method is no label."""
    metrics = make(set())
    metrics.request_began()
    metrics.request_ended("BREW", "/v1/models", status=405, seconds=0.1, is_timed=True)
    text = metrics.exposition().decode()
    assert f'method="{OTHER}"' in text
    assert "BREW" not in text


def test_a_cancelled_request_says_nothing_about_speed() -> None:
    """It is counted, but its duration is the client's patience."""
    metrics = make({"m"})
    metrics.model_request_began()
    metrics.model_request_ended("m", "cancelled", seconds=9.0, first_byte_seconds=0.5)
    text = metrics.exposition().decode()
    assert 'opencode_sidecar_model_requests_total{model="m",outcome="cancelled"} 1.0' in text
    assert "opencode_sidecar_model_request_duration_seconds_count" not in text
    assert 'opencode_sidecar_model_request_first_byte_seconds_count{model="m"} 1.0' in text


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ({}, 0.0),
        ({"input": 2e-6, "output": 8e-6}, 1120 * 2e-6 + 10 * 8e-6),
        (
            {"input": 2e-6, "output": 8e-6, "read": 0.2e-6, "write": 2.5e-6},
            100 * 2e-6 + 10 * 8e-6 + 1000 * 0.2e-6 + 20 * 2.5e-6,
        ),
        ({"input": 2e-6, "read": 0.0, "write": 0.0}, 100 * 2e-6),
    ],
)
def test_cost_is_by_kind_of_token(prices: dict[str, float], expected: float) -> None:
    """Cached tokens have their own price, or without one that of input; a price of zero is a price."""
    entry = CatalogueEntry(
        id="m",
        display_name="m",
        input_cost_per_token=prices.get("input"),
        output_cost_per_token=prices.get("output"),
        cache_read_cost_per_token=prices.get("read"),
        cache_write_cost_per_token=prices.get("write"),
    )
    assert cost_usd(entry, USAGE) == pytest.approx(expected)
    assert sum(tokens(USAGE).values()) == 1130


@pytest.mark.parametrize(
    ("reason", "label"),
    [
        ("exited", "crashed"),
        ("no answer to health checks", "unresponsive"),
        ("start time-out", "start_timeout"),
        ("cannot start", "cannot_start"),
        ("poisoned directory", "poisoned"),
        ("resident size 1600000000 bytes", "memory"),
        ("31000 memory maps", "maps"),
        ("the operator felt like it", "requested"),
    ],
)
def test_a_reason_becomes_one_of_few_causes(reason: str, label: str) -> None:
    """Reasons are sentences with numbers; causes are words."""
    assert cause(reason) == label
