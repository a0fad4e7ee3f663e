"""What others wrote is text, wherever it is shown."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from dispatch_controller.store.connection import get_db
from tests.dashboard.conftest import Open
from tests.dashboard.site import Site

SCRIPT = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
ATTRIBUTE = "\" onmouseover='window.hit = 3' x=\"</title></textarea></svg>{{ 7 * 7 }}"
HOSTILE = SCRIPT + ATTRIBUTE


def untouched(page: Page) -> None:
    expect(page.locator("#link-state")).to_have_text("live")
    assert page.evaluate("window.hit") is None
    assert page.locator("script:not([src]), img, [onmouseover]").count() == 0


def plant(here: Site) -> None:
    """Write rows as no program of ours would."""
    with get_db(here.door.context.store.path) as conn:
        conn.execute(
            "INSERT INTO tasks (id, project, spec_file, status, error, node, depends_on, modifies,"
            " lease_owner, updated_at) VALUES (?1, ?1, ?1, 'failed', ?1, ?1, ?2, ?2, ?1, 1)",
            (HOSTILE, f'["{SCRIPT}"]'),
        )
        conn.execute(
            "UPDATE tasks SET error = ?1, node = ?1, depends_on = ?2, lease_owner = ?1,"
            " spec_file = ?1, status = 'failed' WHERE id = 'plain'",
            (HOSTILE, f'["{SCRIPT}"]'),
        )
        conn.execute(
            "INSERT INTO events (timestamp, task_id, event_type, node, details) VALUES"
            " ('2026-01-01T00:00:00+00:00', 'plain', ?1, ?1, json_object(?1, ?1)),"
            " (?1, 'plain', 'task_failed', ?1, json_object('error', ?1, 'cause', ?1, 'gates',"
            " json_object(?1, ?1)))",
            (HOSTILE,),
        )
        conn.execute("INSERT INTO nodes (name, ssh_host, executor) VALUES (?1, ?1, ?1)", (SCRIPT,))
        conn.execute(
            "INSERT INTO guardian_events (check_type, issue_key, severity, status, details) VALUES"
            " ('incident', ?1, 3, 'detected', json_object('text', ?1)),"
            " (?1, ?1, 3, 'detected', json_object('text', ?1, 'root', ?1))",
            (HOSTILE,),
        )


def test_ids_errors_and_names_are_text_everywhere(here: Site, visit: Open) -> None:
    visit.expected.append("409")  # its node does not exist, so there is no log
    here.add_tasks("plain")
    plant(here)
    page = visit("/")
    for path in ("/", "/tasks", "/projects", "/nodes", "/fleet-health", "/tasks/plain",
                 "/projects/shop", "/tasks?q=%3Cscript%3E&project=%22%3E%3Cscript%3E"):  # fmt: skip
        page.goto(here.url + path)
        untouched(page)
        assert "49" not in page.title()
    page.goto(f"{here.url}/tasks")
    row = page.locator("tbody tr", has_text="window.hit").first
    expect(row.locator(".error")).to_have_text(HOSTILE)
    page.goto(f"{here.url}/tasks/plain")
    expect(page.locator("#facts .error")).to_have_text(HOSTILE)
    expect(page.locator("#attempts")).to_contain_text(SCRIPT)


def test_what_comes_live_is_text(here: Site, visit: Open) -> None:
    here.run("talker")
    page = visit("/tasks/talker")
    machine = here.door.machines.nodes["mini"]
    task = machine.tasks["shop", "talker"]

    def say() -> None:
        object.__setattr__(task.plan, "log", f"{HOSTILE}\x00\ufffd\n")

    here.do(say)
    expect(page.get_by_role("log")).to_contain_text(SCRIPT)
    here.end("talker", HOSTILE, cause="task")
    expect(page.locator("#facts .error")).to_have_text(HOSTILE)
    untouched(page)


def test_the_policy_allows_nothing_inline_and_no_other_host(here: Site, visit: Open) -> None:
    visit.expected += ["policy", "Content Security Policy"]
    page = visit("/")
    policy = page.request.get(here.url).headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', `<p onclick='window.hit = 1'>x</p>`);"
        "const script = document.createElement('script'); script.textContent = 'window.hit = 2';"
        "document.body.append(script); document.querySelector('p[onclick]').click();"
    )
    assert page.evaluate("window.hit") is None
    assert any("policy" in one for one in visit.complaints)
