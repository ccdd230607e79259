#!/bin/sh
# Every form of every instruction of user mode against the host's CPU, by translated code, for ten seconds. The seed is in the output, and ORACLE_SEED
# repeats one; `make oracle` goes on for as long as one likes.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
has_bt || { echo "1..0 # SKIP engine bt does not run on this host"; exit; }
"${ORACLE:-build/release/tests/oracle/oracle}" --engine bt --seconds "${ORACLE_SECONDS:-10}" ${ORACLE_SEED:+--seed "$ORACLE_SEED"}
