"""The domain: agents, environments, sessions, turns and their events. Knows nothing of HTTP."""
