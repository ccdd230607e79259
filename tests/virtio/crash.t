#!/bin/sh
# A few kills of tests/virtio/crash.sh.
exec "$(dirname "$0")/crash.sh" 2 60
