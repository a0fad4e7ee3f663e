"""Git mode: clone, measure, commit, push, salvage. No git process runs outside it."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import agent, watch
from dispatch_controller.fleet.wrapper.ending import Tree
from dispatch_controller.fleet.wrapper.measure import Changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dispatch_controller.fleet.wrapper.watch import Watch

NETWORK = 600.0
QUICK = 120.0
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=15",
    "GIT_AUTHOR_NAME": "dispatch",
    "GIT_AUTHOR_EMAIL": "dispatch@localhost",
    "GIT_COMMITTER_NAME": "dispatch",
    "GIT_COMMITTER_EMAIL": "dispatch@localhost",
    "LC_ALL": "C",
}
# Nothing an agent left in the clone may run in our name, or wait for a person.
_SAFE = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "commit.gpgSign=false", "gc.auto=0")
_TAKEN = "[rejected]"  # by git itself: not a fast-forward; a hook's word is `[remote rejected]`
_EXCLUDE = "node_modules/\n.venv/\n__pycache__/\n"
_SECRET = re.compile(r"(\w+://)[^/@\s]+@")


class GitFailed(Exception):
    """Git's own words."""


class Ended(Exception):
    """The task was told to end while git ran."""


class Repo:
    """The clone of one attempt, in `<task>/repo`."""

    def __init__(self, path: str, program: str, env: Mapping[str, str], watch: Watch) -> None:
        self.path = path
        self.base = ""
        self._program = program
        self._env = {**env, **_QUIET}
        self._watch = watch
        self._salvaged: tuple[str, str] | None = None

    def clone(self, url: str, branch: str) -> None:
        """Clone one branch. Raises GitFailed or Ended."""
        folder = os.path.dirname(self.path)
        branches = ["--single-branch", "--no-tags", "--branch", branch]
        self._git(["clone", "--quiet", *branches, "--", url, self.path], NETWORK, cwd=folder)
        self.base = self._git(["rev-parse", "HEAD"]).strip()
        with open(self.path + "/.git/info/exclude", "a") as file:
            file.write(_EXCLUDE)

    def resume(self, resume: dict[str, str], root: str) -> None:
        """Bring in what an earlier attempt left: its salvage branch, or its patch."""
        if "ref" in resume:
            self._git(["fetch", "--quiet", "--no-tags", "origin", resume["ref"]], NETWORK)
            # What came into the branch since is not this task's doing, nor undone by it.
            self.base = self._git(["merge-base", "HEAD", "FETCH_HEAD"]).strip()
            self._git(["reset", "--quiet", "--hard", "FETCH_HEAD"])
        else:
            self._git(["apply", "--index", "--", os.path.join(root, resume["archive"])])

    def changes(self) -> Changes:
        """What differs from the branch it was cloned from, committed or not."""
        self._git(["add", "--all"])
        changes = Changes()
        listed = self._git(["diff", "--cached", "--no-renames", "--numstat", "-z", self.base])
        for entry in filter(None, listed.split("\0")):
            added, removed, name = entry.split("\t", 2)
            path = os.path.join(self.path, name)
            if os.path.lexists(path):
                changes.files[name] = path
            else:
                changes.removed.append(name)
            changes.loc_added += int(added) if added.isdigit() else 0
            changes.loc_removed += int(removed) if removed.isdigit() else 0
        if changes.any:
            changes.artifact_hash = self._git(["write-tree"]).strip()
        changes.new_text = self._added
        return changes

    def commit(self, message: str) -> None:
        """Commit what the agent left uncommitted, if anything."""
        if self._git(["status", "--porcelain", "--untracked-files=all"]).strip():
            self._git(["add", "--all"])
            self._git(["commit", "--quiet", "--no-verify", "--message", message])

    def push(self, branch: str, again: str | None) -> str:
        """Push HEAD to a branch of the origin, never by force; returns which.

        `again` is pushed to where `branch` holds something else. Raises GitFailed or Ended.
        """
        return self._push("HEAD", branch, again, NETWORK)

    def snapshot(self, message: str) -> str:
        """Return a commit of the working tree as it is; HEAD and branches stay as they are."""
        self._git(["add", "--all"])
        tree = self._git(["write-tree"]).strip()
        return self._git(["commit-tree", tree, "-p", "HEAD", "-m", message]).strip()

    def push_snapshot(self, commit: str, branch: str, again: str | None) -> str:
        """As `push`, for a salvage commit; replaces only what this process salvaged before."""
        name, before = self._salvaged or (branch, None)
        if before is None:
            name = self._push(commit, branch, again, QUICK)
        else:
            lease = f"--force-with-lease=refs/heads/{name}:{before}"
            self._git(["push", "--quiet", lease, "origin", f"{commit}:refs/heads/{name}"], QUICK)
        self._salvaged = (name, commit)
        return name

    def _push(self, commit: str, branch: str, again: str | None, seconds: float) -> str:
        try:
            self._git(["push", "--quiet", "origin", f"{commit}:refs/heads/{branch}"], seconds)
        except GitFailed as e:
            if again is None or _TAKEN not in str(e):
                raise
            return self._push(commit, again, None, seconds)
        return branch

    def patch(self, commit: str, path: str) -> None:
        """Write what a commit changed against the base as a patch."""
        self._git(["diff", "--binary", f"--output={path}", self.base, commit])

    def _added(self) -> Iterator[tuple[str, str]]:
        shown = self._git(["diff", "--cached", "--no-color", "--no-ext-diff", "-U0", self.base])
        name = ""
        lines: list[str] = []
        for line in shown.split("\n"):
            if line.startswith("diff --git "):
                if lines:
                    yield name, "\n".join(lines)
                name, lines = "", []
            elif line.startswith("+++ b/") and not name:
                name = line[6:]
            elif line.startswith("+") and name:
                lines.append(line[1:])
        if lines:
            yield name, "\n".join(lines)

    def _git(self, args: list[str], seconds: float = QUICK, cwd: str | None = None) -> str:
        settings = [word for setting in _SAFE for word in ("-c", setting)]
        argv = [self._program, *settings, *args]
        code, said = run(argv, self._env, cwd or self.path, self._watch, seconds)
        if code:
            words = _SECRET.sub(r"\1***@", said.strip())[-1000:]
            raise GitFailed(f"git {args[0]} failed ({code}): {words}")
        return said


def run(
    argv: list[str], env: Mapping[str, str], cwd: str, watching: Watch, seconds: float
) -> tuple[int, str]:
    """Run a program to its end in its own session. Returns (exit code, output and errors).

    Its tree is ended when `seconds` are over (exit code 124). Raises Ended when the task is told to
    end meanwhile.
    """
    output = os.memfd_create("said") if hasattr(os, "memfd_create") else _scratch()
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        child = agent.spawn(argv, env, cwd, stdin=nothing, output=output)
        child.open_gate()
        how, status = watching.wait(child.pid, time.monotonic() + seconds)
        if how != watch.EXITED:
            Tree(group=child.pid, below=child.pid, lease=None).end(watching, 2.0)
        problem = child.problem()
        said = os.pread(output, 4 << 20, 0).decode(errors="surrogateescape")
    finally:
        os.close(output)
        os.close(nothing)
    if how == watch.KILLED:
        raise Ended
    if how == watch.TIMEOUT:
        return 124, said + f"\nended after {seconds:.0f} s"
    return agent.exit_code(status), problem or said


def _scratch() -> int:
    import tempfile

    fd, path = tempfile.mkstemp()
    os.unlink(path)
    return fd
