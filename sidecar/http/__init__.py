"""The HTTP face: protocol work only. Handlers parse, call the domain, answer or raise."""
