"""What a model can do, typed as the official SDK types it.

Source: `ModelCapabilities` of the Anthropic Models API (Python SDK 2.14.0). All keys without a default
are required there: a partial object fails the SDK's strict mode, so it becomes None here and stays
readable in `ModelInfo.raw`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Capability(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class CapabilitySupport(_Capability):
    """Whether one thing is supported."""

    supported: bool


class ContextManagementCapability(_Capability):
    """Context management and its strategies."""

    supported: bool
    clear_thinking_20251015: CapabilitySupport | None = None
    clear_tool_uses_20250919: CapabilitySupport | None = None
    compact_20260112: CapabilitySupport | None = None


class EffortCapability(_Capability):
    """Levels of reasoning effort."""

    supported: bool
    low: CapabilitySupport
    medium: CapabilitySupport
    high: CapabilitySupport
    max: CapabilitySupport
    xhigh: CapabilitySupport | None = None


class ServerToolsCapability(_Capability):
    """Tools that the vendor runs itself."""

    supported: bool
    code_execution: CapabilitySupport
    web_search: CapabilitySupport


class ThinkingTypes(_Capability):
    """Ways to configure thinking."""

    adaptive: CapabilitySupport
    between_tools: CapabilitySupport
    disabled: CapabilitySupport
    enabled: CapabilitySupport


class ThinkingCapability(_Capability):
    """Extended thinking."""

    supported: bool
    types: ThinkingTypes


class ModelCapabilities(_Capability):
    """All capabilities of one model."""

    batch: CapabilitySupport
    citations: CapabilitySupport
    code_execution: CapabilitySupport
    context_management: ContextManagementCapability
    effort: EffortCapability
    image_input: CapabilitySupport
    pdf_input: CapabilitySupport
    server_tools: ServerToolsCapability
    structured_outputs: CapabilitySupport
    thinking: ThinkingCapability
