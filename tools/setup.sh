#!/bin/sh
# Make .venv from the lock file. $1: a Python 3.11 to 3.13, or empty where none was found.
set -eu

say() { printf 'setup: %s\n' "$*"; }

python=$1
if [ -z "$python" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "no Python 3.11 to 3.13 with venv found: installing python3-venv"
    apt-get -qq update && apt-get -qq install -y python3 python3-venv >/dev/null
    python=python3
fi
if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then
    echo "setup: Python 3.11, 3.12 or 3.13 with its venv module is needed" \
        "(Debian: apt install python3 python3-venv; macOS: brew install python)" >&2
    exit 1
fi
if [ ! -x .venv/bin/python ]; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi
say "installing the locked packages (about a minute the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r requirements.lock
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    -e .
say "done"
