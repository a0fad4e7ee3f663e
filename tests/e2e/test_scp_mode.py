"""sync_mode scp: the project's folder arrives on the node, and again when it has changed."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Starter
from tests.e2e.homes import write_home, write_spec
from tests.sshd import SshFleet


def test_the_projects_folder_is_on_the_node_when_a_task_starts_there(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    ssh_fleet.add("n1")
    folder = tmp_path / "shop"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "page.html").write_text("one\n")
    for unwanted in (".git", "node_modules", "src/__pycache__"):
        (folder / unwanted).mkdir()
        (folder / unwanted / "file").write_text("x")
    shop = {"sync_mode": "scp", "repo_local": str(folder)}
    gone = {"sync_mode": "scp", "repo_local": str(tmp_path / "never-made")}
    home = write_home(
        tmp_path / "home", {"n1": 2}, ssh_fleet, projects={"shop": shop, "gone": gone}
    )
    work = tmp_path / "work"
    write_spec(
        work, "S01-edit", "cat src/page.html\nfind . -name file\nprintf '1\\n2\\n' > new.txt",
        project="shop", modifies=["new.txt"],
    )  # fmt: skip
    write_spec(work, "G01-gone", "true", project="gone", max_retries=0)
    controller = controller_on(home).start()
    controller.register(work)
    row = controller.wait("S01-edit", "completed")
    assert (row["files_changed"], row["loc_added"]) == (1, 2)
    assert row["artifact_hash"]
    assert controller.command("logs", "S01-edit").stdout == "one\n"
    (code,) = (ssh_fleet.nodes["n1"].home / "dispatch" / "shop").glob("code-*")
    assert (code / "new.txt").read_text() == "1\n2\n"
    lost = controller.wait("G01-gone", "deadletter")
    assert "never-made is not a folder" in lost["error"]

    (folder / "src" / "page.html").write_text("two\n")
    write_spec(
        work, "S02-again", 'cat src/page.html > "$OUTPUT_DIR/seen"\ncat src/page.html',
        project="shop", depends_on=["S01"],
    )  # fmt: skip
    controller.register(work)
    controller.wait("S02-again", "completed")
    assert controller.command("logs", "S02-again").stdout == "two\n"
    assert controller.errors() == []
