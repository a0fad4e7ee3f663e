"""SSH against real OpenSSH servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import signal
import subprocess

import pytest
import trio

from dispatch_controller.fleet.ssh import SshMachine, SshService, SshSettings
from dispatch_controller.fleet.ssh_connection import SshLink
from dispatch_controller.fleet.transport import NodeUnfit, TransportLost
from dispatch_controller.runtime.threads import in_thread
from tests.sshd import SshFleet, SshNode


@pytest.fixture
def node(ssh_fleet: SshFleet) -> SshNode:
    return ssh_fleet.add("alpha")


@pytest.fixture
def machine(ssh_service: SshService, node: SshNode) -> SshMachine:
    return SshMachine(ssh_service, "alpha", "alpha")


async def test_runs_exactly_the_arguments_given(machine: SshMachine) -> None:
    nasty = ["a b", "$HOME", "`id`", "'", '"', "*", "~", "x\ny", "", "-n", "ü"]
    done = await machine.run(["printf", "%s|", *nasty])
    assert done.stdout.decode() == "".join(f"{word}|" for word in nasty)


async def test_tilde_slash_means_the_home_folder(machine: SshMachine, node: SshNode) -> None:
    done = await machine.run(["printf", "%s", "~/a b"])
    assert done.stdout.decode() == f"{node.home}/a b"


async def test_stdin_status_and_stderr_come_through(machine: SshMachine) -> None:
    done = await machine.run(["sh", "-c", "cat; echo oops >&2; exit 3"], stdin=b"\x00\xffbytes")
    assert (done.exit_status, done.stdout, done.stderr) == (3, b"\x00\xffbytes", b"oops\n")


async def test_hands_the_node_nothing_of_this_machine(
    machine: SshMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKED_TOKEN", "secret")
    done = await machine.run(["sh", "-c", "env; tty"])
    text = done.stdout.decode()
    assert "LEAKED_TOKEN" not in text
    assert "SECRET" not in text
    assert "SSH_AUTH_SOCK" not in text
    assert "not a tty" in text


async def test_puts_and_gets_files(machine: SshMachine, node: SshNode) -> None:
    content = os.urandom(3_000_000)
    await machine.put("~/new folder/it's.bin", content)
    assert (node.home / "new folder" / "it's.bin").read_bytes() == content
    assert [path.name for path in (node.home / "new folder").iterdir()] == ["it's.bin"]
    assert await machine.get("~/new folder/it's.bin", limit=5) == content[:5]


async def test_missing_file_is_no_empty_file(machine: SshMachine) -> None:
    with pytest.raises(TransportLost, match="could not read"):
        await machine.get("~/nothing", limit=10)


async def test_hundred_commands_at_once_share_one_connection(
    machine: SshMachine, node: SshNode, ssh_service: SshService
) -> None:
    answers: list[bytes] = []

    async def one(number: int) -> None:
        answers.append((await machine.run(["echo", str(number)])).stdout)

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)
    assert sorted(answers) == sorted(f"{number}\n".encode() for number in range(100))
    assert await _connects(ssh_service, machine) == 1


async def test_line_channel_talks_both_ways(machine: SshMachine) -> None:
    channel = await machine.open(["cat"])
    for number in range(500):
        await channel.send(b"line %d" % number)
    assert [await channel.receive() for _ in range(500)] == [b"line %d" % n for n in range(500)]
    await channel.aclose()
    with pytest.raises(TransportLost):
        await channel.receive()


async def test_channel_that_ends_says_why(machine: SshMachine) -> None:
    channel = await machine.open(["sh", "-c", "echo no such luck >&2; exit 7"])
    with pytest.raises(TransportLost, match=r"status 7: no such luck"):
        await channel.receive()


async def test_killed_sshd_is_not_an_empty_answer(machine: SshMachine, node: SshNode) -> None:
    nap = f"sleep {node.port}"
    channel = await machine.open(["sh", "-c", "echo up; cat"])
    assert await channel.receive() == b"up"

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def command() -> None:
                with pytest.raises(TransportLost, match="lost"):
                    await machine.run(["sh", "-c", f"echo partial; exec {nap}"], timeout=60)

            nursery.start_soon(command)
            await _until(node, nap, running=True)
            node.kill_sessions()
    with pytest.raises(TransportLost):
        await channel.receive()
    assert (await machine.run(["echo", "back"])).stdout == b"back\n"


CHATTY = ["sh", "-c", "while echo; do sleep 0.05; done"]
QUIET = ["sleep"]
needs_signals = pytest.mark.skipif(
    os.geteuid() == 0, reason="sshd passes no signals to programs of root's login"
)
LONG = [pytest.param(CHATTY, id="chatty"), pytest.param(QUIET, id="quiet", marks=needs_signals)]


@pytest.mark.parametrize("argv", LONG)
async def test_cancelled_scope_ends_the_remote_command(
    machine: SshMachine, node: SshNode, argv: list[str]
) -> None:
    argv = [*argv, str(node.port)]  # found among the processes of other runs
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, argv)
        await _until(node, " ".join(argv), running=True)
        nursery.cancel_scope.cancel()
    await _until(node, " ".join(argv), running=False)


@pytest.mark.parametrize("argv", LONG)
async def test_time_out_is_a_lost_answer_and_ends_the_command(
    machine: SshMachine, node: SshNode, argv: list[str]
) -> None:
    argv = [*argv, str(node.port)]
    with pytest.raises(TransportLost, match=r"no end within 0\.5 s"):
        await machine.run(argv, timeout=0.5)
    await _until(node, " ".join(argv), running=False)


async def test_unknown_host_key_is_refused_with_the_command_that_accepts_it(
    ssh_fleet: SshFleet,
) -> None:
    node = ssh_fleet.add("beta", trust=False)
    async with trio.open_nursery() as nursery:
        service = SshService(ssh_fleet.settings, in_thread)
        await nursery.start(service.run)
        machine = SshMachine(service, "beta", "beta")
        with pytest.raises(NodeUnfit, match="is unknown") as caught:
            await machine.run(["true"])
        command = str(caught.value).partition("accept it: ")[2]
        assert command == f"ssh-keyscan -p {node.port} 127.0.0.1 >> {ssh_fleet.known_hosts}"
        await in_thread(lambda: subprocess.run(["sh", "-c", command], check=True))
        assert (await machine.run(["echo", "hi"])).stdout == b"hi\n"
        nursery.cancel_scope.cancel()


async def test_changed_host_key_is_refused_with_the_commands_that_mend_it(
    machine: SshMachine, node: SshNode, ssh_fleet: SshFleet
) -> None:
    await machine.run(["true"])
    await in_thread(_restart_with_new_key, node)
    with pytest.raises(TransportLost):
        await machine.run(["sh", "-c", "kill -9 $PPID; sleep 5"])
    with pytest.raises(NodeUnfit, match="has changed") as caught:
        await machine.run(["true"])
    command = str(caught.value).partition("it is right: ")[2]
    assert command.startswith(f"ssh-keygen -R '[127.0.0.1]:{node.port}' -f ")
    await in_thread(lambda: subprocess.run(["sh", "-c", command], check=True))
    assert (await machine.run(["echo", "hi"])).stdout == b"hi\n"


async def test_refused_login_says_what_to_do(
    ssh_service: SshService, node: SshNode, ssh_fleet: SshFleet
) -> None:
    (node.folder / "authorized_keys").write_text("")
    with pytest.raises(NodeUnfit, match="authorized_keys"):
        await SshMachine(ssh_service, "alpha", "alpha").run(["true"])


async def test_nothing_listening_is_a_lost_node(
    ssh_service: SshService, ssh_fleet: SshFleet
) -> None:
    node = ssh_fleet.add("gone")
    node.stop()
    with pytest.raises(TransportLost, match="no SSH connection") as caught:
        await SshMachine(ssh_service, "gone", "gone").run(["true"])
    assert not isinstance(caught.value, NodeUnfit)


async def test_null_known_hosts_of_the_config_is_refused(ssh_fleet: SshFleet) -> None:
    ssh_fleet.add("alpha")
    text = ssh_fleet.config.read_text()
    for value in ("none", "/dev/null"):
        ssh_fleet.config.write_text(f"Host *\n  UserKnownHostsFile {value}\n" + text)
        settings = SshSettings(config=ssh_fleet.config)
        async with trio.open_nursery() as nursery:
            service = SshService(settings, in_thread)
            await nursery.start(service.run)
            with pytest.raises(NodeUnfit, match="UserKnownHostsFile"):
                await SshMachine(service, "alpha", "alpha").run(["true"])
            nursery.cancel_scope.cancel()


async def test_jump_host_is_checked_like_any_other(
    ssh_fleet: SshFleet, ssh_service: SshService
) -> None:
    jump = ssh_fleet.add("jump")
    ssh_fleet.add("inner")
    text = ssh_fleet.config.read_text()
    ssh_fleet.config.write_text(text.replace("Host inner\n", "Host inner\n  ProxyJump jump\n"))
    machine = SshMachine(ssh_service, "inner", "inner")
    assert (await machine.run(["echo", "through"])).stdout == b"through\n"
    assert sum("Accepted publickey" in line for line in jump.log) == 1

    ssh_fleet.known_hosts.write_text(
        "".join(
            line
            for line in ssh_fleet.known_hosts.read_text().splitlines(keepends=True)
            if f":{jump.port} " not in line
        )
    )
    await machine.reset()
    with pytest.raises(NodeUnfit, match="is unknown"):
        await machine.run(["true"])


async def test_proxy_command_of_the_config_is_used(
    ssh_fleet: SshFleet, ssh_service: SshService
) -> None:
    jump = ssh_fleet.add("jump")
    ssh_fleet.add("inner")
    ssh = f"ssh -F {ssh_fleet.config} -o UserKnownHostsFile={ssh_fleet.known_hosts}"
    text = ssh_fleet.config.read_text()
    ssh_fleet.config.write_text(
        text.replace("Host inner\n", f"Host inner\n  ProxyCommand {ssh} -T -W %h:%p jump\n")
    )
    machine = SshMachine(ssh_service, "inner", "inner")
    assert (await machine.run(["echo", "through"])).stdout == b"through\n"
    assert len(jump.sessions()) == 1


async def test_key_files_of_the_settings_are_used(ssh_fleet: SshFleet) -> None:
    node = ssh_fleet.add("alpha")
    settings = SshSettings(
        config=ssh_fleet.folder / "no config",
        known_hosts=ssh_fleet.known_hosts,
        identity_files=(node.client_key,),
    )
    async with trio.open_nursery() as nursery:
        service = SshService(settings, in_thread)
        await nursery.start(service.run)
        machine = SshMachine(service, "alpha", f"{getpass.getuser()}@127.0.0.1:{node.port}")
        assert (await machine.run(["echo", "hi"])).stdout == b"hi\n"
        nursery.cancel_scope.cancel()


async def test_stray_asyncio_error_ends_requests_and_not_the_process(
    machine: SshMachine, node: SshNode, ssh_service: SshService
) -> None:
    channel = await machine.open(["cat"])

    async def crash(link: SshLink) -> None:
        def boom() -> None:
            raise RuntimeError("stray")

        asyncio.get_running_loop().call_soon(boom)

    async with trio.open_nursery() as nursery:

        async def command() -> None:
            with pytest.raises(TransportLost):
                await machine.run(["sleep", str(node.port)], timeout=60)

        nursery.start_soon(command)
        await _until(node, f"sleep {node.port}", running=True)
        target = machine._target()
        with contextlib.suppress(TransportLost):  # the crash may overtake its own answer
            await ssh_service.call("alpha", target, crash)
    with trio.fail_after(10), pytest.raises(TransportLost):
        await channel.receive()
    with trio.fail_after(10):
        while ssh_service._requests is None:
            await trio.lowlevel.checkpoint()
        assert (await machine.run(["echo", "again"])).stdout == b"again\n"
    assert ssh_service.stats.restarts == 1


async def test_calls_after_the_service_ended_are_lost_at_once(ssh_fleet: SshFleet) -> None:
    ssh_fleet.add("alpha")
    service = SshService(ssh_fleet.settings, in_thread)
    machine = SshMachine(service, "alpha", "alpha")
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        channel = await machine.open(["cat"])
        nursery.cancel_scope.cancel()
    with pytest.raises(TransportLost):
        await channel.receive()
    with pytest.raises(TransportLost):
        await channel.send(b"x")
    with pytest.raises(TransportLost, match="not running"):
        await machine.run(["true"])


async def test_cancelled_caller_leaves_others_their_connection(
    machine: SshMachine, node: SshNode
) -> None:
    os.kill(_listener(node), signal.SIGSTOP)  # the connection hangs half-made
    async with trio.open_nursery() as nursery:

        async def patient() -> None:
            assert (await machine.run(["echo", "ok"])).stdout == b"ok\n"

        with trio.move_on_after(0.3) as scope:
            nursery.start_soon(patient)
            await machine.run(["true"])
        assert scope.cancelled_caught
        os.kill(_listener(node), signal.SIGCONT)


@pytest.mark.parametrize(
    "text",
    [
        "-oProxyCommand=id",
        "a b",
        "a;id",
        "a@-b",
        "host:0",
        "host:99999",
        "host:",
        "::1",
        "[::1",
        "a@b@c",
        "",
        "a\n",
        "$(id)",
    ],
)
async def test_strange_ssh_host_is_refused(ssh_service: SshService, text: str) -> None:
    with pytest.raises(NodeUnfit, match="ssh_host"):
        await SshMachine(ssh_service, "n", text).run(["true"])


def _listener(node: SshNode) -> int:
    assert node._process is not None
    return node._process.pid


def _restart_with_new_key(node: SshNode) -> None:
    node.stop()
    node.new_host_key()
    node.start()


def _running(node: SshNode, command: str) -> bool:
    listing = subprocess.run(
        ["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True
    ).stdout
    return any(line.strip() == command for line in listing.splitlines())


async def _until(node: SshNode, command: str, *, running: bool) -> None:
    with trio.fail_after(10):
        while await in_thread(_running, node, command) is not running:
            await trio.lowlevel.checkpoint()


async def _connects(service: SshService, machine: SshMachine) -> int:
    async def count(link: SshLink) -> int:
        return link.connects

    return await service.call(machine.node, machine._target(), count)
