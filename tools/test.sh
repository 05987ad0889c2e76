#!/usr/bin/env bash
# Run the tests side by side in WORKERS processes, and then, one by one, those that nothing may run beside.
# Arguments are pytest's. A group of tests that share fixtures, mostly a file, stays in one process
# (tests/conftest.py); more workers than processors, because most tests wait.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly NO_TESTS=5

.venv/bin/pytest --numprocesses "${WORKERS:-4}" --dist loadscope --no-loadscope-reorder --alone skip "$@"
together=$?
# Interrupted, or not even collected: then there is nothing to add.
[ $together -le 1 ] || [ $together -eq $NO_TESTS ] || exit $together
.venv/bin/pytest --alone only "$@"
alone=$?

# What ARGS picks may all be in one of the two.
[ $alone -ne $NO_TESTS ] || exit $together
[ $together -ne $NO_TESTS ] || exit $alone
exit $((together > alone ? together : alone))
