#!/bin/sh
# Every form of every instruction of user mode against the host's CPU, a fixed number of cases each. The seed is in the output;
# `make oracle` goes on for as long as one likes.
cd "$(dirname "$0")/../.." || exit 1
exec "${ORACLE:-build/release/tests/oracle/oracle}" --cases "${ORACLE_CASES:-200}"
