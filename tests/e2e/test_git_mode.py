"""sync_mode git, against a real bare repository that is reached over SSH."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Starter
from tests.e2e.controller import Controller, eventually
from tests.e2e.homes import write_home, write_spec
from tests.sshd import SshFleet, require_program

NAMES = ("-c", "user.name=x", "-c", "user.email=x@y")


class Forge:
    """A machine with a bare repository, and nodes that may log in there."""

    def __init__(self, fleet: SshFleet, folder: Path, nodes: tuple[str, ...]) -> None:
        self.origin = folder / "forge" / "shop.git"
        self._work = folder / "seed"
        _git("init", "-q", "--bare", "--initial-branch=main", str(self.origin))
        _git("clone", "-q", str(self.origin), str(self._work))
        self.push({"README": "shop\n", "page.html": "one\ntwo\nthree\n"})
        # The nodes' own ssh reads its files from a place that no test may touch: on their PATH
        # is one that reads the fleet's.
        tools = folder / "tools"
        tools.mkdir()
        ssh = shutil.which("ssh")
        options = f"-T -F {shlex.quote(str(fleet.config))} -oUserKnownHostsFile={fleet.known_hosts}"
        (tools / "ssh").write_text(f'#!/bin/sh\nexec {ssh} {options} "$@"\n')
        (tools / "ssh").chmod(0o755)
        fleet.add("forge")
        for name in nodes:
            fleet.add(name, path=f"{tools}:/usr/local/bin:/usr/bin:/bin")
        self.url = f"ssh://forge{self.origin}"

    def push(self, files: dict[str, str], branch: str = "main") -> None:
        work = str(self._work)
        for name, content in files.items():
            (self._work / name).write_text(content)
        _git("-C", work, "add", "--all")
        _git("-C", work, *NAMES, "commit", "-q", "-m", "by hand")
        _git("-C", work, "push", "-q", "origin", f"HEAD:refs/heads/{branch}")

    def branches(self) -> set[str]:
        told = _git("--git-dir", str(self.origin), "for-each-ref", "--format=%(refname:short)")
        return set(told.split())

    def show(self, name: str, ref: str = "main") -> str:
        return _git("--git-dir", str(self.origin), "show", f"{ref}:{name}")

    def merges(self) -> list[str]:
        told = _git(
            "--git-dir", str(self.origin), "log", "--first-parent", "--merges", "--format=%s",
            "main",
        )  # fmt: skip
        return sorted(told.splitlines())

    def project(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"sync_mode": "git", "repo_url": self.url, "main_branch": "main", **more}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def _failures(controller: Controller, task_id: str) -> list[dict[str, Any]]:
    events = sorted(controller.task(task_id)["events"], key=lambda event: event["id"])
    return [event["details"] for event in events if event["event_type"] == "task_failed"]


@pytest.fixture
def forge(ssh_fleet: SshFleet, tmp_path: Path) -> Forge:
    require_program("git")
    return Forge(ssh_fleet, tmp_path, ("n1", "n2"))


def test_work_is_pushed_merged_and_there_for_its_dependents(
    forge: Forge, controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    home = write_home(
        tmp_path / "home", {"n1": 2, "n2": 2}, ssh_fleet, projects={"shop": forge.project()}
    )
    work = tmp_path / "work"
    for name in ("S01-left", "S02-right"):
        write_spec(work, name, f"echo {name} > {name}.txt", project="shop")
    write_spec(
        work, "S03-both", "cat S01-left.txt S02-right.txt > both.txt\nsed -i 1d page.html",
        project="shop", depends_on=["S01", "S02"], modifies=["both.txt", "page.html"],
    )  # fmt: skip
    controller = controller_on(home).start()
    controller.register(work)
    row = controller.wait("S03-both", "completed", timeout=60)
    assert (row["files_changed"], row["loc_added"], row["loc_removed"]) == (2, 2, 1)
    assert row["artifact_hash"]
    assert forge.show("both.txt") == "S01-left\nS02-right\n"
    assert forge.show("page.html") == "two\nthree\n"
    assert forge.merges() == ["Merge S01-left", "Merge S02-right", "Merge S03-both"]
    pushed = {f"task/shop-{row['id']}-{row['node']}" for row in controller.tasks().values()}
    assert forge.branches() == {"main"} | pushed
    assert controller.errors() == []


def test_a_conflict_with_what_was_pushed_meanwhile_fails_the_attempt_and_the_next_one_succeeds(
    forge: Forge, controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    home = write_home(tmp_path / "home", {"n1": 1}, ssh_fleet, projects={"shop": forge.project()})
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    script = (
        f"touch {started}\nwhile [ ! -e {go_on} ]; do sleep 0.05; done\n"
        "sed -i s/one/ONE/ page.html\nsed -i s/eins/EINS/ page.html"
    )
    write_spec(tmp_path / "work", "C01-edit", script, project="shop", modifies=["page.html"])
    controller = controller_on(home).start()
    controller.register(tmp_path / "work")
    eventually(started.exists, 30, controller.said)
    forge.push({"page.html": "eins\ntwo\nthree\n"})
    go_on.touch()
    row = controller.wait("C01-edit", "completed", timeout=60)
    assert row["attempt"] == 2
    (failure,) = _failures(controller, "C01-edit")
    assert failure["reason"] == "merge_conflict"
    assert "CONFLICT (content): Merge conflict in page.html" in failure["error"]
    assert forge.show("page.html") == "EINS\ntwo\nthree\n"


def test_a_kill_between_merge_and_record_merges_once_and_completes(
    forge: Forge, controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    """The remote itself holds the answer to the push back until the controller is dead."""
    home = write_home(tmp_path / "home", {"n1": 1}, ssh_fleet, projects={"shop": forge.project()})
    merged = tmp_path / "merged"
    hook = forge.origin / "hooks" / "post-receive"
    hook.write_text(
        f"#!/bin/sh\nread old new ref\n[ $ref = refs/heads/main ] || exit 0\n"
        f"touch {merged}\nwhile [ -e {merged} ]; do sleep 0.05; done\n"
    )
    hook.chmod(0o755)
    write_spec(tmp_path / "work", "K01-work", "echo k > k.txt", project="shop")
    controller = controller_on(home).start()
    controller.register(tmp_path / "work")
    eventually(merged.exists, 30, controller.said)
    assert controller.task("K01-work")["status"] == "running"
    controller.kill()
    merged.unlink()
    controller.start()
    assert controller.wait("K01-work", "completed")["attempt"] == 1
    assert forge.merges() == ["Merge K01-work"]


def test_a_forge_that_is_away_delays_the_record_and_loses_nothing(
    forge: Forge, controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    home = write_home(tmp_path / "home", {"n1": 1}, ssh_fleet, projects={"shop": forge.project()})
    hook = forge.origin / "hooks" / "pre-receive"
    hook.write_text(
        "#!/bin/sh\nread old new ref\n[ $ref = refs/heads/main ] || exit 0\n"
        "echo closed for repairs >&2\nexit 1\n"
    )
    hook.chmod(0o755)
    write_spec(tmp_path / "work", "A01-work", "echo a > a.txt", project="shop")
    controller = controller_on(home).start()
    controller.register(tmp_path / "work")
    eventually(lambda: "closed for repairs" in controller.said(), 30, controller.said)
    assert controller.task("A01-work")["status"] == "running"
    hook.unlink()
    assert controller.wait("A01-work", "completed")["attempt"] == 1
    assert forge.merges() == ["Merge A01-work"]
    assert controller.errors() == []


def test_the_operators_retry_works_though_the_first_attempts_branch_is_there(
    forge: Forge, controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    """Attempts restart at 1, on the same node, and nothing is ever pushed by force."""
    home = write_home(tmp_path / "home", {"n1": 1}, ssh_fleet, projects={"shop": forge.project()})
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    script = (
        f"touch {started}\nwhile [ ! -e {go_on} ]; do sleep 0.05; done\n"
        "sed -i s/one/ONE/ page.html\nsed -i s/eins/EINS/ page.html"
    )
    write_spec(
        tmp_path / "work", "R01-edit", script, project="shop", modifies=["page.html"], max_retries=1
    )
    controller = controller_on(home).start()
    controller.register(tmp_path / "work")
    eventually(started.exists, 30, controller.said)
    forge.push({"page.html": "eins\ntwo\nthree\n"})
    go_on.touch()
    controller.wait("R01-edit", "deadletter", timeout=60)
    controller.command("retry", "R01-edit")
    row = controller.wait("R01-edit", "completed", timeout=60)
    assert row["attempt"] == 1
    assert forge.show("page.html") == "EINS\ntwo\nthree\n"
    assert forge.merges() == ["Merge R01-edit"]
    first, again = sorted(forge.branches() - {"main"})
    assert (first, again.startswith(f"{first}-s")) == ("task/shop-R01-edit-n1", True)
