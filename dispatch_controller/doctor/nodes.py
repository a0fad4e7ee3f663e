"""Checks of every node of nodes.json: one round trip each, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import trio

from dispatch_controller import executors
from dispatch_controller.doctor.finding import Finding, error, warning
from dispatch_controller.doctor.node_script import SCRIPT, NodeAnswer, read_answer
from dispatch_controller.fleet.bundle import Bundle, build
from dispatch_controller.fleet.http import worker_token
from dispatch_controller.fleet.local import LocalMachine
from dispatch_controller.fleet.ssh import SshMachine
from dispatch_controller.fleet.ssh_service import SshService
from dispatch_controller.fleet.ssh_settings import SshSettings
from dispatch_controller.fleet.transport import Machine, NodeUnfit, TransportLost
from dispatch_controller.node_files import POLLS, NodeEntry
from dispatch_controller.runtime.clock import Clock
from dispatch_controller.runtime.threads import RunSync
from dispatch_controller.settings import Settings

SKEW = 30.0
"""Seconds a node's clock may be off."""
FULL, NEARLY_FULL = 0.98, 0.95
"""Shares of a disk: the wrapper refuses to start above the first (nodes.md, "The wrapper")."""
LEAST_PYTHON = (3, 9)
WORKER_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Bench:
    """What the checks of nodes need."""

    settings: Settings
    clock: Clock
    run_sync: RunSync
    uses_git: bool
    """Whether any project is brought to its nodes by git."""


async def check_nodes(nodes: Sequence[NodeEntry], bench: Bench) -> list[Finding]:
    """Return what is wrong with each node, in the order of the file."""
    found: dict[str, list[Finding]] = {node.name: [] for node in nodes}
    service = SshService(_ssh_settings(bench.settings), bench.run_sync)
    async with trio.open_nursery() as infrastructure:
        await infrastructure.start(service.run)

        async def check(node: NodeEntry) -> None:
            if node.worker_url == POLLS:
                return  # it is never called: whether it lives, its polls tell
            if node.worker_url is not None:
                found[node.name] += await _check_worker(node, node.worker_url, bench.settings)
            else:
                found[node.name] += await _check_machine(node, _machine(node, service), bench)

        async with trio.open_nursery() as checks:
            for node in nodes:
                checks.start_soon(check, node)
        infrastructure.cancel_scope.cancel()
    return [finding for findings in found.values() for finding in findings]


def _machine(node: NodeEntry, service: SshService) -> Machine:
    if node.ssh_host is None:
        return LocalMachine(node.name)
    return SshMachine(service, node.name, node.ssh_host)


async def _check_worker(node: NodeEntry, url: str, settings: Settings) -> list[Finding]:
    address = url.rstrip("/") + "/v1/health"
    token = settings.api_token
    shown = (
        {}
        if token is None
        else {"Authorization": f"Bearer {worker_token(token.get_secret_value(), node.name)}"}
    )
    try:
        async with httpx.AsyncClient(timeout=WORKER_TIMEOUT) as http:
            answer = await http.get(address, headers=shown)
    except (httpx.HTTPError, httpx.InvalidURL) as failed:
        text = f"its worker does not answer at {address}: {failed or type(failed).__name__}"
        fix = f"start the worker there, or mend worker_url; then: curl {address}"
        return [error("node", node.name, text, fix)]
    if answer.status_code != httpx.codes.OK:
        text = f"its worker answers {answer.status_code} at {address}"
        return [error("node", node.name, text, "look at the worker's own log")]
    return []


async def _check_machine(node: NodeEntry, machine: Machine, bench: Bench) -> list[Finding]:
    settings, wrapper = bench.settings, build()
    own = "" if settings.task_wrapper == "own" else settings.task_wrapper
    program = _agent(node, settings)
    programs = [program] if program else []
    argv = ["sh", "-c", SCRIPT, "sh", node.work_dir, wrapper.name, own, *programs]
    before = bench.clock.wall()
    try:
        done = await machine.run(argv)
    except NodeUnfit as unfit:
        return [error("node", node.name, unfit.message, "do what it says, then try again")]
    except (TransportLost, ValueError) as lost:
        text = lost.message if isinstance(lost, TransportLost) else str(lost)
        fix = f"look whether this works: {_by_hand(node)}"
        return [error("node", node.name, f"cannot be reached: {text}", fix)]
    after = bench.clock.wall()
    answer = read_answer(done.stdout.decode(errors="replace"))
    if answer is None:
        said = done.stderr.decode(errors="replace").strip()[-200:]
        text = f"its shell does not run a script to the end (exit {done.exit_status}): {said}"
        fix = "give the user a POSIX shell, and take `exit` and `exec` out of what it reads first"
        return [error("node", node.name, text, fix)]
    found = [*_judge_programs(node, answer, program, own, bench.uses_git)]
    found += _judge_disk(node, answer)
    found += _judge_clock(node, answer, before, after)
    if not own:
        found += _judge_wrapper(node, answer, wrapper)
    return found


def _by_hand(node: NodeEntry) -> str:
    if node.ssh_host is None:
        return "sh -c true"
    return f"ssh {'ssh://' if ':' in node.ssh_host else ''}{node.ssh_host} true"


def _agent(node: NodeEntry, settings: Settings) -> str | None:
    """Return the program that the node's executor starts, None where no setting knows it."""
    command = executors.command(settings.executors, node.executor, node.api_mode)
    if command is None or not command.argv:
        return None
    return "sh" if command.argv[0] == "{shell}" else command.argv[0]


def _judge_programs(
    node: NodeEntry, answer: NodeAnswer, agent: str | None, own: str, uses_git: bool
) -> Iterator[Finding]:
    need = "install Python 3.9 or newer, as python3 on the PATH of a plain ssh command"
    if answer.python is None:
        yield error("node", node.name, "has no python3", need)
    elif answer.python[:2] < LEAST_PYTHON:
        version = ".".join(map(str, answer.python)) or "does not run"
        yield error("node", node.name, f"its python3 is too old or broken ({version})", need)
    if uses_git and "git" not in answer.programs:
        text = "has no git, and projects with sync_mode git need it"
        yield error("node", node.name, text, "install git there")
    if agent is not None and agent not in answer.programs:
        text = f"has no program {agent}, which its executor {node.executor} starts"
        fix = f"install it there (also looked for in ~/.local/bin, ~/bin, ~/.cargo/bin): {agent}"
        yield error("node", node.name, text, fix)
    if own and not answer.own_wrapper:
        text = f"has no program {own}, which the setting task_wrapper names"
        yield error("node", node.name, text, 'bring it there, or set task_wrapper = "own"')


def _judge_disk(node: NodeEntry, answer: NodeAnswer) -> Iterator[Finding]:
    if answer.readonly is not None:
        text = f"{answer.readonly} cannot be written, so {node.work_dir} cannot be used"
        yield error("node", node.name, text, "give it to the user that logs in, or set work_dir")
    if answer.disk_used is None or answer.disk_free is None:
        return
    share = answer.disk_used / ((answer.disk_used + answer.disk_free) or 1)
    if share > NEARLY_FULL:
        refuses = " and takes no task" if share > FULL else ""
        text = f"the disk of {node.work_dir} is {share:.0%} full{refuses}"
        judge = error if share > FULL else warning
        yield judge("node", node.name, text, "make room there")


def _judge_clock(
    node: NodeEntry, answer: NodeAnswer, before: float, after: float
) -> Iterator[Finding]:
    if answer.now is None:
        return
    # It said whole seconds, at some moment of the round trip.
    ahead, behind = answer.now - after, before - (answer.now + 1)
    skew = max(ahead, behind)
    if skew > SKEW:
        way = "ahead" if ahead > 0 else "behind"
        text = f"its clock is {skew:.0f} s {way}"
        yield warning("node", node.name, text, "let it keep time by NTP")


def _judge_wrapper(node: NodeEntry, answer: NodeAnswer, wrapper: Bundle) -> Iterator[Finding]:
    if answer.wrapper is not None and answer.wrapper != wrapper.sha256:
        path = f"{node.work_dir}/.dispatch/{wrapper.name}"
        text = f"{path} is not what this release brings"
        yield error("node", node.name, text, f"remove it; it is brought anew: rm {path}")


def _ssh_settings(settings: Settings) -> SshSettings:
    ssh = settings.ssh
    return SshSettings(
        config=ssh.config,
        known_hosts=ssh.known_hosts,
        identity_files=ssh.identity_files,
        connect_timeout=ssh.connect_timeout,
        command_timeout=ssh.command_timeout,
        transfer_timeout=ssh.transfer_timeout,
        max_channels=ssh.max_channels,
    )
