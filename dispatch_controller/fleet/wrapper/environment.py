"""What an agent finds in its environment, and where its program is looked for."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper.taskdir import open_dir, read_small

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_controller.fleet.wrapper.order import Mode, Order

# What makes a login a login. Everything else (a controller on this machine has its secrets in its
# environment) stays behind; an executor's own variables come with the order.
_PASSED = frozenset(
    """
    HOME USER LOGNAME SHELL LANG LANGUAGE TZ TERM TMPDIR SSH_AUTH_SOCK
    XDG_CONFIG_HOME XDG_CACHE_HOME XDG_DATA_HOME XDG_RUNTIME_DIR
    SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy https_proxy no_proxy all_proxy
    """.split()  # noqa: SIM905 - a list of words reads better so
)
# A command run over SSH gets no login shell, so what the user's profile adds is not on its PATH.
_USUAL = ("~/.local/bin", "~/bin", "~/.cargo/bin", "/opt/homebrew/bin", "/usr/local/bin")


@functools.lru_cache(maxsize=1)
def search_path() -> str:
    """PATH, with the usual places of programs behind it."""
    path = os.environ.get("PATH") or os.defpath
    known = path.split(":")
    more = [p for p in map(os.path.expanduser, _USUAL) if p not in known]
    return ":".join([*known, *more])


def find_program(program: str, path: str | None = None) -> str | None:
    """Return the absolute path of an executable, None when there is none."""
    if "/" in program:
        candidates = [os.path.abspath(os.path.expanduser(program))]
    else:
        folders = (path or search_path()).split(":")
        candidates = [os.path.join(folder, program) for folder in folders if folder]
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return candidate
    return None


@functools.lru_cache(maxsize=2)
def base_environment(*, inherit: bool = False) -> Mapping[str, str]:
    """The login's own variables; all of them where the caller made the environment (`inherit`)."""
    env = {
        name: value
        for name, value in os.environ.items()
        if inherit or name in _PASSED or name.startswith("LC_")
    }
    env["PATH"] = search_path()
    return env


class MissingFile(Exception):
    """A file that an executor's mode reads a variable from is not there; the text names it."""


def agent_environment(
    order: Order, mode: Mode, task_dir: str, base: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of an agent. Raises MissingFile."""
    env = {**base, **mode.env}
    for name, path in mode.env_files.items():
        env[name] = _content(name, os.path.expanduser(path))
    env.update(
        TASK_ID=order.task_id,
        PROJECT=order.project,
        ATTEMPT=str(order.attempt),
        LEASE=order.lease,
        TASK_DIR=task_dir,
        OUTPUT_DIR=task_dir + "/output",
        SPEC_FILE=task_dir + "/spec.md",
        API_MODE=mode.api_mode,
        CI="1",
    )
    return env


def _content(name: str, path: str) -> str:
    folder, base = os.path.split(os.path.realpath(path))
    try:
        fd = open_dir(folder)
    except OSError:
        raise MissingFile(f"{name}: {path} is not readable on this node") from None
    try:
        raw = read_small(fd, base)
    finally:
        os.close(fd)
    if raw is None or b"\0" in raw:
        raise MissingFile(f"{name}: {path} is not readable on this node")
    return raw.decode(errors="surrogateescape").strip()
