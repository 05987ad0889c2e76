"""Child processes: start, signal, wait, and the end of all that is below them."""
