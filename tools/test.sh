#!/usr/bin/env bash
# Run the tests, and last those that nothing may run beside. They run in WORKERS processes side by side, four
# unless said otherwise, 0 for this one alone: most of them wait. Groups of tests that share fixtures, mostly a
# file, stay in one process (tests/conftest.py). Arguments are pytest's.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly NO_TESTS=5

# pytest rewrites the assertions of every file that it imports, in each of the processes, unless it may keep
# the result beside the file.
unset PYTHONDONTWRITEBYTECODE

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
