"""Everything that touches opencode: the child process, its HTTP API, its config file, its events."""
