"""How the parts are put together, room by room; `sidecar.app` calls these in order."""
