"""Checks of the home folder, and of who may read what in and around it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from dispatch_controller.doctor.finding import Finding, error, warning
from dispatch_controller.home import Home, HomeError, owner_id
from dispatch_controller.settings import Settings

LEAST_FREE = 100 * 1024 * 1024
"""Bytes; below that the database may soon not be written any more."""
_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk")


def foreign(home: Home) -> Finding | None:
    """Return the finding for a home of another user: what doctor makes there would be in the way.

    Only its owner can take the lock without leaving a file that the owner cannot open.
    """
    if not home.root.is_dir() or home.root.stat().st_uid == os.geteuid():
        return None
    owner = home.root.owner()
    command = f"sudo -u {owner} dispatch-controller doctor --home {home.root}"
    return error("home", home.root, f"belongs to {owner}, who has to run doctor", command)


def check_home(home: Home) -> Iterator[Finding]:
    """The folder, its parts, its disk, and the id that tasks on nodes carry."""
    root = home.root
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        fix = f"make a home: dispatch-controller init --home {root}"
        yield error("home", root, what, fix)
        return
    if not os.access(root, os.W_OK | os.X_OK):
        fix = f"give it to the user who runs the controller: chown -R $USER {root}"
        yield error("home", root, "cannot be written by this user", fix)
        return
    yield from _check_folders(home)
    if home.owner.exists():
        try:
            owner_id(home)
        except HomeError as failed:
            fix = "restore the file from a backup; running tasks carry the id"
            text = str(failed).removeprefix(f"{home.owner}").lstrip(": ")
            yield error("home", home.owner, text, fix)
    free = shutil.disk_usage(root).free
    if free < LEAST_FREE:
        text = f"only {free // 2**20} MiB are free on the disk of the home"
        yield error("home", root, text, "make room, or move the home to another disk")


def _check_folders(home: Home) -> Iterator[Finding]:
    for folder in (home.alerts, home.snapshots, home.logs):
        if not folder.exists() or folder.is_dir():
            continue
        fix = f"move it away: mv {folder} {folder}.old"
        yield error("home", folder, "is a file, and must be a folder", fix)
    mode = home.root.stat().st_mode
    if mode & 0o022:
        text = f"others can write into it (mode {mode & 0o777:03o}), and so give the agents orders"
        repair = partial(home.root.chmod, mode & 0o755)
        yield error("permissions", home.root, text, f"chmod go-w {home.root}", repair)


def check_permissions(home: Home, settings: Settings) -> Iterator[Finding]:
    """Keys, tokens and what else others must not read."""
    files = [settings.api_token_file, settings.tls_key, *settings.ssh.identity_files]
    files += [Path("~/.ssh").expanduser() / name for name in _KEYS]
    if _holds_secrets(settings, home):
        files.append(home.settings)
    for path in dict.fromkeys(path for path in files if path is not None):
        yield from _check_private(path)


def _holds_secrets(settings: Settings, home: Home) -> bool:
    """Whether dispatch.toml itself may hold one: a token file or a variable is not it."""
    if not settings.secrets():
        return False
    try:
        text = home.settings.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return any(secret in text for secret in settings.secrets())


def _check_private(path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & 0o077:
        text = f"can be read by others (mode {mode & 0o777:03o})"
        yield warning("permissions", path, text, f"chmod 600 {path}", _private(path))


def _private(path: Path) -> Callable[[], None]:
    return partial(path.chmod, 0o600)
