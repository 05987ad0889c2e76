"""opencode behind the Anthropic Managed Agents API, with every model a LiteLLM gateway offers."""

__version__ = "0.1.0"
