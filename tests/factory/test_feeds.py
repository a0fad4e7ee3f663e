"""Feeds and searches from a local server, with their usual sins."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from dispatch_controller.factory.feeds import FeedRefused, parse
from tests.factory.conftest import Bench, HandClock, MakeBench
from tests.factory.scripted import Reply, Request, Scripted, serving

RSS = """<?xml version="1.0" encoding="{encoding}"?>
<rss version="2.0"><channel><title>News</title>
<item><title>Größe &amp; <![CDATA[<b>Gewicht</b>]]></title><link>https://example.org/1</link>
<guid>one</guid><description>&lt;p&gt;First &lt;script&gt;x()&lt;/script&gt;&lt;/p&gt;</description>
<pubDate>Mon, 06 Jan 2025 10:00:00 GMT</pubDate></item>
<item><title>No date, no link</title></item>
<item></item>
</channel></rss>
"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>News</title>
<entry><id>tag:1</id><title type="html">An &lt;i&gt;entry&lt;/i&gt;</title>
<link href="https://example.org/a"/><updated>2025-01-06T10:00:00Z</updated>
<summary>Short</summary></entry></feed>
"""
BOMB = """<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]><rss version="2.0"><channel><item><title>&c;</title></item>
</channel></rss>"""


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serving() as server:
        yield server


def clock(bench: Bench) -> HandClock:
    assert isinstance(bench.clock, HandClock)
    return bench.clock


def notes(bench: Bench, project: str = "shop") -> list[str]:
    folder = bench.settings.specs / project / "research"
    return [path.read_text() for path in sorted(folder.glob("*.md"))]


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (RSS.format(encoding="utf-8").encode(), ""),
        (RSS.format(encoding="utf-8").encode("latin-1"), ""),  # says UTF-8 and is not
        (RSS.format(encoding="iso-8859-1").encode("latin-1"), "text/xml"),
        (RSS.format(encoding="utf-16").encode("utf-16"), ""),
        (RSS.format(encoding="utf-8").encode(), "text/xml; charset=us-ascii"),
        (RSS.format(encoding="no-such").encode(), ""),
        (b"\n\n junk before \n" + RSS.format(encoding="utf-8").encode(), ""),
        (RSS.format(encoding="utf-8").replace("</channel></rss>", "").encode(), ""),
        (RSS.format(encoding="utf-8").replace("&amp;", "&").replace("&lt;", "&nbsp;").encode(), ""),
        (RSS.format(encoding="utf-8").replace("Gewicht", "Gew\x00\x08icht").encode(), ""),
    ],
)
def test_rss_is_read_whatever_its_encoding_says(content: bytes, declared: str) -> None:
    items = parse(content, declared)
    assert [item.link for item in items] == ["https://example.org/1", ""]
    assert items[0].title.endswith(("Gewicht", "icht"))
    assert items[0].date == "Mon, 06 Jan 2025 10:00:00 GMT"
    assert items[1].title == "No date, no link"
    assert items[1].date == ""
    for item in items:
        assert "<" not in item.title + item.summary


def test_atom_is_read() -> None:
    [item] = parse(ATOM.encode())
    assert (item.id, item.title, item.link, item.summary) == (
        "tag:1", "An entry", "https://example.org/a", "Short",
    )  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        BOMB.encode(),
        BOMB.replace("?>", ' encoding="utf-16"?>').encode("utf-16"),
        BOMB.replace("DOCTYPE", "doctype").encode(),
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><rss><item>&e;</item></rss>',
    ],
)
def test_entity_bombs_are_refused_unread(content: bytes) -> None:
    with pytest.raises(FeedRefused, match="entities"):
        parse(content)


@pytest.mark.parametrize(
    "content", [b"", b"<html><p>Hello", b"{}", b"\xff\xfe\x00", b"/etc/passwd"]
)
def test_what_is_no_feed_is_refused(content: bytes) -> None:
    with pytest.raises(FeedRefused):
        parse(content)


def test_of_ten_thousand_items_the_first_are_read() -> None:
    item = "<item><title>Item {0}</title><link>https://example.org/{0}</link></item>"
    many = "".join(item.format(number) for number in range(10_000))
    items = parse(f'<rss version="2.0"><channel>{many}</channel></rss>'.encode())
    assert len(items) == 500
    assert items[0].title == "Item 0"


async def test_new_items_become_notes_and_old_ones_do_not(
    bench: MakeBench, server: Scripted
) -> None:
    state = {"text": RSS.format(encoding="utf-8"), "etag": '"1"'}

    def feed(request: Request) -> Reply:
        if request.headers.get("if-none-match") == state["etag"]:
            return Reply(304)
        return Reply(200, state["text"].encode(), {"ETag": state["etag"], "Last-Modified": "x"})

    server.by_path["/feed"] = feed
    made = bench(sources={"news": {"kind": "feed", "url": f"{server.url}/feed"}})
    made.project("shop")
    made.project("quiet", factory={"enabled": False})
    await made.cycle()
    [note] = notes(made)
    assert "Größe" in note
    assert "https://example.org/1" in note
    assert notes(made, "quiet") == []
    made.restart()
    clock(made).now += 3600
    await made.cycle()
    assert server.requests[-1].headers["if-none-match"] == '"1"'
    assert server.requests[-1].headers["if-modified-since"] == "x"
    assert len(notes(made)) == 1
    state["etag"] = '"2"'
    new = "<item><title>Fresh</title><guid>three</guid></item></channel>"
    state["text"] = state["text"].replace("</channel>", new)
    clock(made).now += 3600
    await made.cycle()
    assert len(notes(made)) == 2
    assert "Fresh" in notes(made)[1]
    assert "Größe" not in notes(made)[1]
    clock(made).now += 60
    await made.cycle()
    assert len(server.requests) == 3
    # Notes are documents to registration, and context to generators.
    report = await made.registrar.register([made.settings.specs])
    assert (report["documents"], report["errors"]) == (2, [])


async def test_notes_are_context_and_their_links_evidence(
    bench: MakeBench, server: Scripted
) -> None:
    server.by_path["/feed"] = lambda request: Reply(200, ATOM.encode())
    spec = (
        "---\\ntitle: Read it\\nmodifies: [docs/a.md]\\nevidence: [%s]\\n---\\n\\n"
        "Read it and write down what is new.\\n\\n## Acceptance\\n\\nIt is written.\\n"
    )
    program = (
        "import json,sys\ngiven=json.load(sys.stdin)\n"
        "assert 'https://example.org/a' in given['notes']\n"
        f"print('{spec % 'https://example.org/a'}')\nprint('{spec % 'https://example.org/b'}')\n"
    )
    made = bench(
        generator="command",
        command={"argv": [sys.executable, "-c", program]},
        sources={"news": {"kind": "feed", "url": f"{server.url}/feed"}},
    )
    made.project("shop")
    (made.home / "projects.json").rename(made.home / "aside")
    await made.cycle()
    assert server.requests == []  # nobody to tell
    (made.home / "aside").rename(made.home / "projects.json")
    await made.factory.plan()
    await made.factory.research()
    await made.cycle()
    assert made.generated() == ["G1-01-read-it"]
    [draft] = await made.factory.drafts()
    assert "https://example.org/b" in draft["reason"]


async def test_no_network_is_one_event_until_it_is_back(bench: MakeBench, server: Scripted) -> None:
    made = bench(sources={"news": {"kind": "feed", "url": f"{server.url}/feed"}})
    made.project("shop")
    answer = Reply(500)
    server.by_path["/feed"] = lambda request: answer
    for _ in range(5):
        await made.cycle()
        made.restart()
        clock(made).now += 3600
    assert [e.details["state"] for e in made.events("factory_source")] == ["failing"]
    answer = Reply(200, ATOM.encode())
    await made.cycle()
    states = [event.details["state"] for event in made.events("factory_source")]
    assert states == ["failing", "answers again"]
    assert len(notes(made)) == 1


async def test_hostile_feeds_are_events_and_stop_no_other(
    bench: MakeBench, server: Scripted
) -> None:
    server.by_path = {
        "/bomb": lambda request: Reply(200, BOMB.encode()),
        "/huge": lambda request: Reply(200, b"<rss>", endless=20),
        "/gzip": lambda request: Reply(200, b" " * 30_000_000, gzipped=True),
        "/cut": lambda request: Reply(200, ATOM.encode(), cut=60),
        "/loop": lambda request: Reply(302, b"", {"Location": "/loop"}),
        "/good": lambda request: Reply(200, ATOM.encode()),
    }
    made = bench(
        sources={
            path[1:]: {"kind": "feed", "url": f"{server.url}{path}"} for path in server.by_path
        }
    )
    made.project("shop")
    await made.cycle()
    failing = {str(event.details["source"]) for event in made.events("factory_source")}
    assert failing == {"bomb", "huge", "gzip", "cut", "loop"}
    assert len(notes(made)) == 1


async def test_github_is_searched(bench: MakeBench, server: Scripted) -> None:
    row = {
        "full_name": "a/b", "html_url": "https://github.com/a/b", "description": "Does *it*",
        "updated_at": "2025-01-06T10:00:00Z",
    }  # fmt: skip
    body = json.dumps({"items": [row, {"full_name": None}, 5]}).encode()
    server.by_path["/search/repositories"] = lambda request: Reply(200, body)
    made = bench(
        sources={
            "gh": {
                "kind": "github", "url": server.url, "query": "topic:shop stars:>9",
                "projects": ["shop"],
            }
        }
    )  # fmt: skip
    made.project("shop")
    made.project("other")
    await made.cycle()
    assert "q=topic%3Ashop+stars%3A%3E9" in server.requests[0].path
    [note] = notes(made)
    assert "a/b (2025-01-06T10:00:00Z) <https://github.com/a/b>: Does \\*it\\*" in note
    assert notes(made, "other") == []


async def test_a_command_is_a_source(bench: MakeBench) -> None:
    made = bench(
        sources={
            "ours": {"kind": "command", "argv": ["printf", "One\\thttps://example.org/x\\nTwo\\n"]},
            "none": {"kind": "command", "argv": ["/no/such/program"]},
            "bad": {"kind": "command", "argv": ["false"]},
        }
    )
    made.project("shop")
    await made.cycle()
    [note] = notes(made)
    assert "- One <https://example.org/x>\n- Two\n" in note
    assert len(made.events("factory_source")) == 2


async def test_a_broken_state_file_is_begun_anew(bench: MakeBench, server: Scripted) -> None:
    server.by_path["/feed"] = lambda request: Reply(200, ATOM.encode())
    made = bench(sources={"news": {"kind": "feed", "url": f"{server.url}/feed"}})
    made.project("shop")
    file = made.home / "factory" / "research.json"
    file.parent.mkdir()
    for content in (
        "{",
        "[]",
        '{"due": "x", "sources": {"news": {"seen": 5, "etag": []}}}',
        "\x00",
    ):
        file.write_text(content)
        clock(made).now += 1
        await made.cycle()
        assert json.loads(file.read_text())["due"] > clock(made).now
