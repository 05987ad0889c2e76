"""The demo gateway: a scriptable stand-in for LiteLLM, so that the sidecar works with no account."""

from sidecar.demo_gateway.models import DEFAULT_MODELS, DemoModel
from sidecar.demo_gateway.server import DemoGateway, RecordedRequest

__all__ = ["DEFAULT_MODELS", "DemoGateway", "DemoModel", "RecordedRequest"]
