"""Does this opencode still behave as the sidecar is built on? One check per fact, against the real binary."""
