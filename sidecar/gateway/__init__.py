"""The LiteLLM gateway: its client, the catalogue made from it, the relay in front of it."""
