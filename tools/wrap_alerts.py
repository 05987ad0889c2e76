"""Write the copies of deploy/observability/alerts.yaml, in a component and in the chart."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "deploy/observability/alerts.yaml"
TARGET = ROOT / "deploy/k8s/components/prometheus-operator/prometheusrule.yaml"
COPY = ROOT / "deploy/chart/alerts.yaml"
HEAD = """\
# deploy/observability/alerts.yaml, wrapped. Write it again after a change there: python tools/wrap_alerts.py
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: opencode-sidecar
spec:
"""


def wrapped() -> str:
    """Return the manifest's text."""
    _, groups, rules = RULES.read_text().partition("groups:")
    lines = (groups + rules).splitlines()
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


if __name__ == "__main__":
    TARGET.write_text(wrapped())
    COPY.write_text(RULES.read_text())
