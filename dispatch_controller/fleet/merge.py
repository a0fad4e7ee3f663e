"""Merges the branch of a completed attempt into its project's main branch (sync_mode git).

The merge is made in a bare mirror, without a working tree, and pushed as one new commit on top of
what the main branch was: whoever pushed meanwhile wins, and the merge is made anew.
"""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import trio

from dispatch_controller.core import ids
from dispatch_controller.fleet.ssh_settings import SshSettings

TRIES = 5
"""Merges made anew because the main branch had moved on."""
NETWORK_SECONDS = 300.0
_MAIN, _WORK = "refs/dispatch/main", "refs/dispatch/work"
# Nothing of a project's repository runs here, and nothing waits for a person.
_SAFE = ("core.hooksPath=/dev/null", "commit.gpgSign=false", "gc.autoDetach=false")
_MOVED = ("[rejected]", "cannot lock ref", "incorrect old value")


class MergeConflict(Exception):
    """Both sides changed the same; the text is git's."""


class MergeFailed(Exception):
    """It could not be merged now; the text is git's. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be merged: `branch` of the repository at `url` into its branch `main`."""

    project: str
    url: str
    main: str
    branch: str
    message: str


class Merger:
    """The one place that writes to main branches; one merge at a time for each project.

    `folder` holds the mirrors, and can be deleted whenever nothing runs.
    """

    def __init__(self, folder: Path, ssh: SshSettings) -> None:
        self._folder = folder
        self._ssh = ssh
        self._locks: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)

    async def merge(self, work: Work, still_ours: Callable[[], Awaitable[bool]]) -> bool:
        """Return whether the work is in the main branch; merging it twice is merging it once.

        `still_ours` is asked right before the push: when it says no, nothing is pushed and False
        is returned. Raises MergeConflict and MergeFailed.
        """
        async with self._locks[work.project]:
            mirror = self._folder / f"{ids.folder_name(work.project)}.git"
            env = _environment(self._ssh)
            await _git(env, "init", "--quiet", "--bare", str(mirror))
            git = [f"--git-dir={mirror}", *(word for one in _SAFE for word in ("-c", one))]
            for _ in range(TRIES):
                await _git(
                    env, *git, "fetch", "--quiet", "--no-tags", "--", work.url,
                    f"+refs/heads/{work.main}:{_MAIN}", f"+refs/heads/{work.branch}:{_WORK}",
                )  # fmt: skip
                inside = await _git(
                    env, *git, "merge-base", "--is-ancestor", _WORK, _MAIN, may_say=(1,)
                )
                if inside.returncode == 0:
                    return True
                commit = await _commit(env, git, work.message)
                if not await still_ours():
                    return False
                pushed = await _git(
                    env, *git, "push", "--porcelain", "--", work.url,
                    f"{commit}:refs/heads/{work.main}", may_say=(1,),
                )  # fmt: skip
                if pushed.returncode == 0:
                    return True
                if not any(word in _words(pushed) for word in _MOVED):
                    raise MergeFailed(_words(pushed))
            raise MergeFailed(f"{work.main} of {work.url} moved on during {TRIES} merges")


async def _commit(env: Mapping[str, str], git: list[str], message: str) -> str:
    """Return a commit of both sides merged. Raises MergeConflict and MergeFailed."""
    merged = await _git(
        env, *git, "merge-tree", "--write-tree", "--name-only", _MAIN, _WORK, may_say=(1,)
    )
    tree, _, told = merged.stdout.decode(errors="replace").partition("\n")
    if merged.returncode == 1:
        raise MergeConflict(told.strip()[-2000:])
    made = await _git(env, *git, "commit-tree", tree, "-p", _MAIN, "-p", _WORK, "-m", message)
    return made.stdout.decode().strip()


async def _git(
    env: Mapping[str, str], *arguments: str, may_say: tuple[int, ...] = ()
) -> CompletedProcess[bytes]:
    """Run git to its end. Raises MergeFailed for an exit status that is not 0 or in `may_say`."""
    with trio.move_on_after(NETWORK_SECONDS):
        try:
            done = await trio.run_process(
                ["git", *arguments],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                start_new_session=True,
                env=env,
            )
        except OSError as error:
            raise MergeFailed(f"git does not start: {error}") from error
        if done.returncode != 0 and done.returncode not in may_say:
            raise MergeFailed(_words(done) or f"git ended with {done.returncode}")
        return done
    raise MergeFailed(f"git did not end within {NETWORK_SECONDS:g} s")


def _words(done: CompletedProcess[bytes]) -> str:
    return (done.stdout + done.stderr).decode(errors="replace").strip()[-2000:]


def _environment(ssh: SshSettings) -> dict[str, str]:
    """Return the environment for git: the controller's, with its way of SSH, and no questions."""
    command = ["ssh", "-T", "-a", "-x", "-oBatchMode=yes"]  # whatever the user's config says
    command.append(f"-oConnectTimeout={ssh.connect_timeout:.0f}")
    if ssh.config is not None and ssh.config.is_file():
        command += ["-F", str(ssh.config)]
    if ssh.known_hosts is not None:
        command.append(f"-oUserKnownHostsFile={ssh.known_hosts}")
    for key in ssh.identity_files:
        command += ["-i", str(key)]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {
        **ours,
        "GIT_SSH_COMMAND": shlex.join(command),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "dispatch",
        "GIT_AUTHOR_EMAIL": "dispatch@localhost",
        "GIT_COMMITTER_NAME": "dispatch",
        "GIT_COMMITTER_EMAIL": "dispatch@localhost",
        "LC_ALL": "C",
    }
