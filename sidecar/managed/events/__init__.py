"""A session's event log: append, persist, publish, replay, subscribe."""
