"""One attempt: prepare, run the agent, judge what it did, push, salvage; the result is a status."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import agent, gates, log, memory, notify, procs, watch
from dispatch_controller.fleet.wrapper import salvage as saving
from dispatch_controller.fleet.wrapper.clock import now
from dispatch_controller.fleet.wrapper.ending import Tree
from dispatch_controller.fleet.wrapper.environment import (
    MissingFile,
    agent_environment,
    base_environment,
    find_program,
)
from dispatch_controller.fleet.wrapper.fence import Decision, word
from dispatch_controller.fleet.wrapper.git import Ended, GitFailed, Repo, run
from dispatch_controller.fleet.wrapper.launch import first_status
from dispatch_controller.fleet.wrapper.measure import Changes, Trees
from dispatch_controller.fleet.wrapper.paths import outside
from dispatch_controller.fleet.wrapper.ratelimit import reset_time
from dispatch_controller.fleet.wrapper.report import prompts
from dispatch_controller.fleet.wrapper.taskdir import write_all, write_status

if TYPE_CHECKING:
    from typing import Any

    from dispatch_controller.fleet.wrapper.launch import Launch, Post
    from dispatch_controller.fleet.wrapper.watch import Watch

_MAX_HOPS = 2
_LEFTOVER_GRACE = 5.0
_VERIFY_LEAST = 60.0


class Refused(Exception):
    """No process of this lease was started, and none will be by this order."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Failed(Exception):
    """The attempt failed for a reason that is not the agent's exit or a gate."""

    def __init__(self, reason: str, error: str) -> None:
        super().__init__(error)
        self.reason = reason


class Attempt:
    """`run()` returns the final status, without `completed_at`."""

    def __init__(self, launch: Launch, watch: Watch, post: Post, hold: int) -> None:
        self._launch = launch
        self._order = launch.order
        self._watch = watch
        self._post = post
        self._hold = hold
        self.committed = False
        self._path = launch.layout.task(self._order.project, self._order.folder)
        self._number = saving.Number(self._order.attempt, self._order.sequence)
        self._code = f"{launch.layout.project(self._order.project)}/{self._order.code}"
        self._base = base_environment(inherit=self._order.inherit_env)
        # An older caller's own shell may carry our lease in its environment: descendants only.
        lease = None if self._order.inherit_env else self._order.lease
        self._tree = Tree(group=None, below=os.getpid(), lease=lease)
        self._status = first_status(launch, self._order.modes[0].api_mode)
        self._deadline = time.monotonic() + self._order.timeout
        self._trees: Trees | None = None
        watch.on_beat = self._tell_prompt
        self._repo: Repo | None = None
        self._changes: Changes | None = None

    def run(self) -> dict[str, Any]:
        """Raises Refused as long as nothing was committed."""
        try:
            self._prepare()
            code, seconds = self._run_agent()
            return self._judge(code, seconds)
        except (Ended, _TimedOut) as e:
            return self._ended(timed_out=isinstance(e, _TimedOut))
        except Failed as e:
            return self.failed(e.reason, str(e))
        except GitFailed as e:
            return self.failed("sync_failed", str(e))

    def failed(self, reason: str, error: str) -> dict[str, Any]:
        """Salvage and return the status of a failure."""
        self._salvage()
        self._status.update(status="failed", reason=reason, error=error)
        return self._status

    def _tell_prompt(self) -> None:
        """A task that waits for input is reported at once, not at the next collection."""
        if self._tree.group is not None and prompts(self._launch.dir_fd):
            notify.tell(self._launch.layout, self._order.project, self._order.folder)

    def end_tree(self) -> None:
        """End whatever the agent started; what survives is reported."""
        if self._watch.reap() or not procs.LINUX:
            ended = self._tree.members()
            if ended:
                self._status["leftovers"] = self._tree.end(self._watch, _LEFTOVER_GRACE)
                log.note(self._launch.dir_fd, f"ended what the agent left running: {sorted(ended)}")

    # -- before the agent

    def _prepare(self) -> None:
        since = self._write_spec()
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._path + "/output")
        if self._order.git:
            self._commit()
            self._clone(self._order.git)
            return
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._code)
        self._trees = Trees(self._path, self._code, since)
        if set(gates.NEEDS_CHANGES) & set(self._order.gates):
            self._trees.remember()
        if self._order.resume and "archive" in self._order.resume:
            archive = os.path.join(self._launch.layout.root, self._order.resume["archive"])
            try:
                saving.unpack(archive, self._code, self._path + "/output")
            except OSError as e:
                raise Refused("bad_order", f"resume.archive cannot be unpacked: {e}") from e

    def _write_spec(self) -> int:
        """Write spec.md; its time is the start by the file system's own clock."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open("spec.md", flags, 0o644, dir_fd=self._launch.dir_fd)
        try:
            write_all(fd, self._order.full_spec.encode())
            return os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)

    def _commit(self) -> None:
        """From here on the attempt exists. Raises Refused."""
        order, launch = self._order, self._launch
        with Decision(launch.layout, order.project, shared=True):
            if word(order.project, order.folder, order.lease) in launch.fence.voids:
                raise Refused("void", f"lease {order.lease} was voided here")
            if not launch.still_named():
                raise Refused("superseded", "a newer serve of this home took over")
            write_status(launch.dir_fd, self._status)
        self.committed = True
        if self._hold >= 0:
            os.close(self._hold)
            self._hold = -1

    def _clone(self, git: dict[str, str]) -> None:
        program = find_program("git")
        if program is None:
            raise Failed("sync_failed", "git is not installed on this node")
        self._repo = Repo(self._path + "/repo", program, self._base, self._watch)
        self._repo.clone(git["url"], git["branch"])
        if self._order.resume:
            self._repo.resume(self._order.resume, self._launch.layout.root)
        self._status["git_base"] = self._repo.base

    # -- the agent

    def _run_agent(self) -> tuple[int, float]:
        """Run it, in the next mode after a rate limit. Returns (exit code, seconds)."""
        modes = self._order.modes[: _MAX_HOPS + 1]
        for hop, mode in enumerate(modes):
            try:
                env = agent_environment(self._order, mode, self._path, self._base)
            except MissingFile as e:
                if self.committed:
                    raise Failed("not_logged_in", str(e)) from e
                raise Refused("executor_missing", str(e)) from e
            self._env = env
            self._status.update(api_mode=mode.api_mode, attempts=hop + 1)
            began = time.monotonic()
            code, said = self._run_once(env)
            if not self._limited(code, said):
                return code, time.monotonic() - began
            if hop + 1 == len(modes):
                self._status["rate_limited_until"] = reset_time(said, now())
                raise Failed("rate_limited", f"rate limited ({mode.api_mode}): {_last_line(said)}")
            log.note(self._launch.dir_fd, f"rate limited in mode {mode.api_mode}; trying the next")
            self._rest(self._order.hop_delay)
        raise AssertionError("an order has at least one mode")

    def _run_once(self, env: dict[str, str]) -> tuple[int, str]:
        """Start the agent and wait for its end. Returns (exit code, the end of what it printed)."""
        lock = self._launch.dir_fd
        output = _open_log(lock)
        begins = os.fstat(output).st_size
        child = self._spawn(env, output)
        self._tree.group = child.pid
        os.close(output)
        self._confirm(child)
        how, wait_status = self._watch.wait(child.pid, self._deadline)
        if how == watch.TIMEOUT:
            raise _TimedOut
        if how == watch.KILLED:
            raise Ended
        if procs.LINUX:
            self._tree.group = None  # the number is free again; descendants are known by parent
        self.end_tree()
        problem = child.problem()
        code = agent.exit_code(wait_status)
        self._status["exit_code"] = code
        if problem:
            raise Failed("executor_missing", problem)
        if code == 128 + 9 and memory.oom_kills() > self._launch.oom_kills:
            raise Failed("out_of_memory", "the system ended the agent: memory was used up")
        if code == 0 and not (self._order.rate_limit or self._order.login):
            return code, ""
        size = min(8192, max(0, _log_size(lock) - begins))
        return code, log.tail(lock, size) if size else ""

    def _spawn(self, env: dict[str, str], output: int) -> agent.Agent:
        argv, lock = self._launch.argv, self._launch.dir_fd
        cwd = self._repo.path if self._repo else self._code
        reads = f"{self._path}/spec.md" if self._order.stdin else os.devnull
        if not self._order.inherit_env and agent.waits_by_itself(argv, env):
            return agent.spawn_script(argv, env, cwd, stdin=reads, output=output, lock=lock)
        stdin = os.open(reads, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return agent.spawn(argv, env, cwd, stdin=stdin, output=output, keep=[lock])
        finally:
            os.close(stdin)

    def _confirm(self, child: agent.Agent) -> None:
        """Put the running agent on disk, then let it run, then tell."""
        self._status.update(status="running", pid=child.pid, pid_start=procs.start_of(child.pid))
        try:
            if self.committed:
                write_status(self._launch.dir_fd, self._status)
                notify.tell(self._launch.layout, self._order.project, self._order.folder)
            else:
                self._commit()
        except BaseException:
            child.call_off()
            os.waitpid(child.pid, 0)
            raise
        child.open_gate()
        self._post.tell("running")

    def _limited(self, code: int, said: str) -> bool:
        """Whether a rate limit ended the agent. Work that got done is not doubted for a word.

        Raises Failed when it was not logged in.
        """
        order = self._order
        limited = order.rate_limit is not None and order.rate_limit.search(said)
        login = order.login is not None and order.login.search(said)
        if not (limited or login) or (code == 0 and self._measure().any):
            return False
        if not limited:
            raise Failed("not_logged_in", _last_line(said))
        return True

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._watch.sleep_until(
            until, lambda: self._watch.killed or time.monotonic() >= self._deadline
        )
        if self._watch.killed:
            raise Ended
        if time.monotonic() >= self._deadline:
            raise _TimedOut

    # -- after the agent

    def _judge(self, code: int, seconds: float) -> dict[str, Any]:
        order = self._order
        if self._repo and code == 0:
            self._repo.commit(f"{order.task_id}: attempt {order.attempt}")
        asked = set(gates.NEEDS_CHANGES) & set(order.gates)
        changes = self._measure() if asked or self._repo or order.modifies else Changes()
        verdict = gates.judge(order, code, seconds, changes, self._verify)
        self._status["gates"] = verdict.gates
        if verdict.reason:
            error = verdict.error or ""
            if verdict.reason == "exit":
                error += _quoted(_last_line(log.tail(self._launch.dir_fd, 2048)))
            return self.failed(verdict.reason, error)
        if self._status["outside"] and order.write_set == "fail":
            return self.failed("write_set", f"changed outside modifies: {self._status['outside']}")
        if order.git and self._repo:
            self._push(self._repo, order.git["push"])
        self._status["status"] = "completed"
        return self._status

    def _push(self, repo: Repo, branch: str) -> None:
        """Push once, and not when the attempt was told to end. Raises GitFailed or Ended.

        An earlier attempt of the same number may have left its branch: see Number.
        """
        if self._watch.killed:
            raise Ended
        self._status["git_push_ok"] = False
        self._status["git_branch"] = repo.push(branch, self._number.again(branch))
        self._status["git_push_ok"] = True
        import shutil

        shutil.rmtree(repo.path, ignore_errors=True)
        if os.path.lexists(repo.path):
            log.note(self._launch.dir_fd, f"{repo.path} could not be removed wholly")

    def _verify(self, command: str) -> str | None:
        cwd = self._repo.path if self._repo else self._code
        seconds = max(_VERIFY_LEAST, self._deadline - time.monotonic())
        code, said = run(["/bin/sh", "-c", command], self._env, cwd, self._watch, seconds)
        self.end_tree()
        if code == 0:
            return None
        log.note(self._launch.dir_fd, f"verify ended with exit code {code}:\n{said[-20000:]}")
        return f"verify `{command[:200]}` ended with exit code {code}{_quoted(_last_line(said))}"

    def _ended(self, *, timed_out: bool) -> dict[str, Any]:
        """Told to end, or out of time: salvage first, then end it, then salvage what came since."""
        self._watch.deaf = True
        self._salvage()
        before = self._changes.artifact_hash if self._changes else None
        pid = self._tree.group
        self._status["leftovers"] = self._tree.end(self._watch, self._watch.grace)
        wait_status = self._watch.taken(pid) if pid is not None else None
        if wait_status is not None:
            self._status["exit_code"] = agent.exit_code(wait_status)
        self._changes = None
        if self._measured_hash() != before:
            self._salvage()
        if timed_out:
            error = f"not done after {self._order.timeout} s"
            self._status.update(status="timeout", reason="timeout", error=error, exit_code=124)
        else:
            self._status.update(status="failed", reason="killed", error="it was told to end")
        return self._status

    # -- what it made

    def _measure(self) -> Changes:
        """What changed, measured once; the status gets its numbers. Raises GitFailed."""
        if self._changes is None:
            source = self._repo or self._trees
            changes = source.changes() if source else Changes()
            self._changes = changes
            self._status.update(
                files_changed=len(changes.files) + len(changes.removed),
                loc_added=changes.loc_added,
                loc_removed=changes.loc_removed,
                artifact_hash=changes.artifact_hash,
                outside=outside(changes.code_names(), self._order.modifies)[:1000],
            )
        return self._changes

    def _measured_hash(self) -> str | None:
        try:
            return self._measure().artifact_hash
        except (GitFailed, Ended):
            return None

    def _salvage(self) -> None:
        """Save what changed. A failure to do so is reported and ends nothing else."""
        order, layout = self._order, self._launch.layout
        self._watch.deaf = True
        try:
            changes = self._measure()
            if self._repo and changes.any:
                saved = saving.save_repo(
                    layout, order.project, order.folder, self._number, self._repo
                )
            elif changes.files:
                saved = saving.save_files(
                    layout, order.project, order.folder, self._number, changes
                )
            else:
                return
        except (OSError, GitFailed) as e:
            log.note(self._launch.dir_fd, f"salvage failed: {e}")
            return
        self._status["salvage"] = saved.where


class _TimedOut(Exception):
    """The task's time is over."""


def _open_log(dir_fd: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open("task.log", flags, 0o644, dir_fd=dir_fd)


def _log_size(dir_fd: int) -> int:
    try:
        return os.stat("task.log", dir_fd=dir_fd, follow_symlinks=False).st_size
    except OSError:
        return 0


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""


def _quoted(line: str) -> str:
    return f": {line}" if line else ""
