"""The HTTP server: protocol work only. Handlers parse, call the domain, answer or raise."""
