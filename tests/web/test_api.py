"""/api/v1, as the command line and other programs use it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dispatch_controller.store.connection import get_db
from tests.fakes import Plan
from tests.web.serving import Serving


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def test_tasks_are_listed_by_page_with_the_reason_why_they_wait(door: Serving) -> None:
    await door.add_tasks("A", "B", "C")
    await door.add_tasks("D", project="barn", depends_on=["A"])
    page = await door.data("tasks", limit=2, offset=1)
    assert [task["id"] for task in page["tasks"]] == ["B", "C"]
    assert page["total"] == 4
    assert [t["id"] for t in (await door.data("tasks", project="barn"))["tasks"]] == ["D"]
    assert (await door.data("tasks", status="failed"))["tasks"] == []
    assert (await door.data("tasks", q="B", status=""))["total"] == 1
    task = (await door.data("tasks", q="D"))["tasks"][0]
    assert task["modifies"] == ["D.txt"]
    assert task["reason"]["kind"]
    assert "A" in task["reason"]["text"]


@pytest.mark.parametrize(
    "query",
    ["status=lost", "limit=0", "limit=1001", "limit=x", "offset=-1", "limit=1&limit=2"],
)
async def test_a_query_that_cannot_be_meant_is_refused(door: Serving, query: str) -> None:
    answer = await door.http.get(f"/api/v1/tasks?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid"


async def test_a_task_is_a_spec_file_first(door: Serving) -> None:
    answer = await door.post(
        "/api/v1/tasks", project="shop", task_id="S1", title="Say: hello # now", priority=1,
        modifies=["src/é.py"], body="---\nDo it.", verify="make test", max_retries=5,
        executor="shell", estimated_minutes=7, timeout_minutes=9, exclusive=True,
    )  # fmt: skip
    assert answer.status_code == 201
    row = answer.json()["data"]
    path = door.context.settings.specs / "shop" / "S1.md"
    assert row["spec_file"] == str(path)
    assert (row["id"], row["status"], row["priority"]) == ("S1", "pending", 1)
    assert (row["max_retries"], row["exclusive"], row["modifies"]) == (5, 1, ["src/é.py"])
    assert "# Say: hello # now\n\n---\nDo it.\n" in path.read_text("utf-8")
    assert stat.S_ISREG(path.lstat().st_mode)
    assert list(path.parent.iterdir()) == [path]
    again = await door.post("/api/v1/tasks", project="shop", task_id="S1", modifies=["x"])
    assert again.status_code == 409


async def test_a_task_never_overwrites_a_file(door: Serving) -> None:
    folder = door.context.settings.specs / "shop"
    folder.mkdir(parents=True)
    (folder / "notes.md").write_text("mine")
    (folder / "link.md").symlink_to(folder / "elsewhere.md")
    for task_id in ("notes", "link"):
        answer = await door.post("/api/v1/tasks", project="shop", task_id=task_id, modifies=["x"])
        assert answer.status_code == 409
    assert (folder / "notes.md").read_text() == "mine"
    assert not (folder / "elsewhere.md").exists()


async def test_a_task_that_is_no_spec_leaves_no_file(door: Serving) -> None:
    answer = await door.post("/api/v1/tasks", project="shop", task_id="S1", modifies=["../up"])
    assert answer.status_code == 422
    assert list((door.context.settings.specs / "shop").iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 200, "ａ", "a\n", "-x", 7])
async def test_hostile_names_are_refused(door: Serving, name: object, tmp_path: Path) -> None:
    before = files(tmp_path)
    for body in ({"project": name, "task_id": "S1"}, {"project": "p", "task_id": name}):
        answer = await door.post("/api/v1/tasks", modifies=["x"], **body)
        assert answer.status_code == 422
        assert "pattern" not in answer.json()["error"]["message"]
    assert files(tmp_path) == before


@pytest.mark.parametrize("quoted", ["..%2Fx", "%2e%2e", "a%20b", "a%00b", "%F0%9F%92%A9", "a@b@c"])
async def test_ids_in_paths_are_checked(door: Serving, quoted: str) -> None:
    for path in (f"tasks/{quoted}", f"tasks/{quoted}/log", f"projects/{quoted}"):
        answer = await door.http.get(f"/api/v1/{path}")
        assert answer.status_code in (404, 422)
        assert answer.json()["ok"] is False


async def test_one_task_is_shown_with_its_events(door: Serving) -> None:
    await door.add_tasks("A")
    task = await door.data("tasks/A")
    assert [event["event_type"] for event in task["events"]] == ["task_registered"]
    assert task["reason"] is not None
    answer = await door.http.get("/api/v1/tasks/B")
    assert answer.status_code == 404
    assert answer.json() == {
        "ok": False,
        "error": {"code": "not_found", "message": "there is no task 'B'"},
    }


async def test_retry_and_cancel(door: Serving) -> None:
    await door.add_tasks("A")
    assert (await door.post("/api/v1/tasks/A/retry")).status_code == 409
    cancelled = await door.post("/api/v1/tasks/A/cancel")
    assert cancelled.json()["data"]["status"] == "deadletter"
    retried = await door.post("/api/v1/tasks/A/retry")
    assert retried.json()["data"]["status"] == "pending"
    for verb in ("retry", "cancel"):
        assert (await door.post(f"/api/v1/tasks/nix/{verb}")).status_code == 404


async def test_nodes_are_switched_and_freed(door: Serving) -> None:
    await door.add_node("mini", slots=3)
    row = (await door.data("nodes"))[0]
    assert (row["name"], row["free"], row["enabled"], row["reachable"]) == ("mini", 3, 1, False)
    assert (await door.post("/api/v1/nodes/mini/disable")).json()["data"]["enabled"] == 0
    assert (await door.post("/api/v1/nodes/mini/enable")).json()["data"]["enabled"] == 1
    assert (await door.post("/api/v1/nodes/maxi/enable")).status_code == 404
    lift = "/api/v1/nodes/mini/lift_quarantine"
    assert (await door.post(lift)).status_code == 409
    with get_db(door.context.store.path) as conn:
        conn.execute("INSERT INTO node_reputation (node, quarantined) VALUES ('mini', 1)")
    assert (await door.data("nodes"))[0]["quarantined"] is True
    assert (await door.post(lift)).json()["data"]["quarantined"] is False
    assert (await door.post("/api/v1/nodes/maxi/lift_quarantine")).status_code == 404


async def test_projects_and_registration(door: Serving, tmp_path: Path) -> None:
    folder = tmp_path / "more" / "barn"
    folder.mkdir(parents=True)
    (folder / "S1.md").write_text("---\ntask_id: S1\nmodifies: [a]\n---\n# One\n")
    (folder / "S2.md").write_text("---\ntask_id: S2\n---\n# Two\n")
    gone = tmp_path / "gone"
    answer = await door.post("/api/v1/register", paths=[str(folder.parent), str(gone)])
    result = answer.json()["data"]
    assert (result["registered"], result["updated"], result["unchanged"]) == (1, 0, 0)
    assert [Path(error["file"]).name for error in result["errors"]] == ["gone", "S2.md"]
    assert (await door.data("projects"))[0] == {
        "project": "barn", "tasks": {"pending": 1}, "paused": False, "sync_mode": None,
    }  # fmt: skip
    assert (await door.data("projects/barn"))["tasks"]["pending"] == 1
    assert (await door.http.get("/api/v1/projects/nix")).status_code == 404
    assert (await door.post("/api/v1/register", paths=["specs"])).status_code == 422
    assert (await door.post("/api/v1/register", paths=["/a\0b"])).status_code == 422


async def test_events_are_paged_newest_first(door: Serving) -> None:
    await door.add_tasks("A", "B", "C")
    first = await door.data("events", limit=2)
    assert [event["task_id"] for event in first["events"]] == ["C", "B"]
    second = await door.data("events", limit=2, before=first["next"])
    assert [event["task_id"] for event in second["events"]] == ["A"]
    assert second["next"] is None


async def test_the_log_comes_from_the_node_in_pieces(door: Serving) -> None:
    door.machines.add("mini", lambda order: Plan(seconds=1000, log="0123456789"))
    await door.add_node("mini")
    await door.add_tasks("A")
    assert (await door.http.get("/api/v1/tasks/A/log")).status_code == 409
    door.context.knowledge.answered("mini", door.context.clock.wall())
    await door.schedule()
    piece = await door.data("tasks/A/log", offset=2, limit=3)
    assert piece == {"offset": 2, "size": 10, "text": "234", "alive": True}
    door.machines.nodes["mini"].up = False
    lost = await door.http.get("/api/v1/tasks/A/log")
    assert lost.status_code == 409
    assert "mini" in lost.json()["error"]["message"]


async def test_what_is_not_there_is_told_in_json(door: Serving) -> None:
    for method, path, status in (
        ("GET", "/api/v1/nix", 404),
        ("GET", "/v1/nix", 404),
        ("DELETE", "/api/v1/tasks", 405),
        ("PUT", "/v1/heartbeat", 405),
        ("OPTIONS", "/api/v1/tasks", 405),
        ("GET", "//api/v1/tasks", 404),
    ):
        answer = await door.http.request(method, path)
        assert answer.status_code == status, (method, path)
        assert answer.headers["Content-Type"] == "application/json"
        assert "error" in answer.json()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_odd_values_of_other_programs_do_not_break_the_list(door: Serving) -> None:
    await door.add_tasks("A")
    with get_db(door.context.store.path) as conn:
        conn.execute(
            "UPDATE tasks SET depends_on = 'oops', modifies = NULL, duration_seconds = 9e999,"
            " error = x'ff00', priority = NULL"
        )
    task = (await door.data("tasks"))["tasks"][0]
    assert (task["depends_on"], task["modifies"]) == ([], [])
    assert task["duration_seconds"] is None
