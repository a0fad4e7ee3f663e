#!/bin/sh
# What the tests use of the system: installed by apt when root, named otherwise.
set -eu

missing=""
need() { # program, Debian package
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}
need sshd openssh-server
need ssh openssh-client
need git git
need parallel parallel
need lsof lsof
need chromium chromium
need faketime faketime
need ip iproute2
need systemd-analyze systemd
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing$missing"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
else
    echo "setup: for all tests, install:$missing (tests that need them are skipped)"
fi
