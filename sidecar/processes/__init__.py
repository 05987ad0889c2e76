"""Child processes: start, signal, wait, and the sweep of what outlives its owner."""
