"""The web, as agents reach it: pages are fetched by the sidecar, within domain lists and away from its own
network."""
