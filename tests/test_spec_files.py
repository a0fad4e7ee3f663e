import os
from pathlib import Path

import pytest

from dispatch_controller import spec_files
from dispatch_controller.core.spec import SIZE_LIMIT

SPEC = "---\nmodifies: a.py\n---\n"


def write(path: Path, content: str | bytes = SPEC) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "specs"
    folder.mkdir()
    return folder


def test_files_at_any_depth_are_found_in_order(root: Path) -> None:
    for name in ("web/S2.md", "web/old/deep/S3.md", "S1.md", "api/S4.md", "web/notes.txt"):
        write(root / name)
    write(root / "web/PRD.md", "# Text")
    found = spec_files.find([root])
    relative = [(Path(s.path).relative_to(root).as_posix(), s.project) for s in found.specs]
    assert relative == [
        ("S1.md", "specs"),
        ("api/S4.md", "api"),
        ("web/S2.md", "web"),
        ("web/old/deep/S3.md", "web"),
    ]
    assert [Path(document.path).name for document in found.documents] == ["PRD.md"]
    assert (found.errors, found.warnings) == ([], [])


def test_a_project_folder_and_a_single_file_name_their_project(root: Path) -> None:
    file = write(root / "web/S2.md")
    assert [spec.project for spec in spec_files.find([root / "web"]).specs] == ["web"]
    assert [spec.project for spec in spec_files.find([file]).specs] == ["web"]
    assert [spec.project for spec in spec_files.find([file], "mine").specs] == ["mine"]


def test_a_file_under_two_paths_is_read_once(root: Path) -> None:
    file = write(root / "web/S2.md")
    assert len(spec_files.find([root, root / "web", file]).specs) == 1


def test_hidden_files_and_folders_are_passed_over(root: Path) -> None:
    write(root / ".git/S1.md")
    write(root / "web/._S1.md", b"\x00\x05\x16\x07")
    found = spec_files.find([root])
    assert found == spec_files.Found()


def test_a_path_inside_a_hidden_folder_is_searched(root: Path) -> None:
    write(root / ".home/specs/web/S1.md")
    assert len(spec_files.find([root / ".home/specs"]).specs) == 1


def test_what_does_not_exist_is_empty(root: Path) -> None:
    assert spec_files.find([root / "gone", root / "gone/S1.md"]) == spec_files.Found()


def test_links_are_passed_over_with_a_warning(root: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside/S9.md")
    write(root / "web/S1.md")
    (root / "web/S2.md").symlink_to(outside)
    (root / "web/loop").symlink_to(root)
    (root / "web/elsewhere").symlink_to(outside.parent)
    (root / "web/dangling.md").symlink_to(root / "gone")
    found = spec_files.find([root])
    assert [Path(spec.path).name for spec in found.specs] == ["S1.md"]
    names = [Path(warning.file).name for warning in found.warnings]
    assert names == ["S2.md", "dangling.md", "elsewhere", "loop"]


def test_a_path_that_is_a_link_is_followed(root: Path, tmp_path: Path) -> None:
    write(root / "web/S1.md")
    link = tmp_path / "link"
    link.symlink_to(root)
    assert [s.path for s in spec_files.find([link]).specs] == [str(root / "web/S1.md")]


def test_one_bad_file_stops_no_other(root: Path) -> None:
    write(root / "S1.md")
    write(root / "S2.md", b"---\n\xff\n---\n")
    write(root / "S3.md", b"---\n" + b"x" * SIZE_LIMIT)
    write(root / "S4.md", "---\nmodifies: [\n---\n")
    os.mkfifo(root / "S5.md")
    write(root / "S6.md")
    found = spec_files.find([root])
    assert [Path(spec.path).name for spec in found.specs] == ["S1.md", "S6.md"]
    assert [(Path(e.file).name, e.line) for e in found.errors] == [
        ("S2.md", 2),
        ("S3.md", 1),
        ("S4.md", 3),
        ("S5.md", 1),
    ]
    assert "not a regular file" in found.errors[-1].reason


def test_a_huge_document_is_not_read_and_no_error(root: Path) -> None:
    with (root / "research.md").open("wb") as stream:
        stream.truncate(1 << 40)
    assert len(spec_files.find([root]).documents) == 1


def test_a_folder_named_like_a_spec_is_a_folder(root: Path) -> None:
    write(root / "web.md/S1.md")
    found = spec_files.find([root])
    assert [spec.project for spec in found.specs] == ["web.md"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_an_error_for_it_alone(root: Path) -> None:
    write(root / "S1.md").chmod(0)
    write(root / "web/S2.md").parent.chmod(0)
    write(root / "S3.md")
    try:
        found = spec_files.find([root])
    finally:
        (root / "web").chmod(0o700)
    assert len(found.specs) == 1
    assert [Path(error.file).name for error in found.errors] == ["S1.md", "web"]
    assert all("cannot be read" in error.reason for error in found.errors)


def test_a_name_that_is_not_utf8_is_an_error(root: Path) -> None:
    try:
        (Path(os.fsdecode(os.fsencode(root) + b"/S1-\xff.md"))).write_text(SPEC)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    (error,) = spec_files.find([root]).errors
    assert error.file.endswith("S1-\\xff.md")


def test_two_runs_find_the_same(root: Path) -> None:
    for name in ("b/S1.md", "a/S2.md", "a/S10.md"):
        write(root / name)
    assert spec_files.find([root]) == spec_files.find([root])


def test_files_of_rows_are_located(root: Path, tmp_path: Path) -> None:
    file = write(root / "web/S1.md")
    link = tmp_path / "link"
    link.symlink_to(root)
    rows = [str(file), "specs/web/S1.md", str(link / "web/S1.md"), "gone.md", "/gone/S1.md"]
    rows += ["", "~no-such-user-here/x", "x" * 5000, "nul\x00", str(file / "below")]
    located = spec_files.locate(rows, base=root.parent)
    assert located == {
        str(file): str(file),
        "specs/web/S1.md": str(file),
        str(link / "web/S1.md"): str(file),
    }


def test_a_file_is_read_again_only_when_it_changed(root: Path) -> None:
    kept, changed = write(root / "S1.md"), write(root / "S2.md")
    known: spec_files.Known = {}
    first = spec_files.find([root], known=known).specs
    before = changed.stat()
    write(changed, SPEC.replace("a.py", "b.py"))
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = spec_files.find([root], known=known).specs
    assert [spec.path for spec in second] == [str(kept), str(changed)]
    assert second[0] is first[0]
    assert second[1].modifies == ("b.py",)


def test_a_file_that_could_not_be_read_is_tried_again(root: Path) -> None:
    broken = write(root / "S1.md", b"\xff\xfe")
    known: spec_files.Known = {}
    assert spec_files.find([root], known=known).errors
    assert known == {}
    write(broken)
    assert spec_files.find([root], known=known).specs


def test_rows_of_files_just_found_are_not_looked_for(root: Path) -> None:
    here = str(root / "never-there.md")
    assert spec_files.locate([here], base=root, found={here}) == {here: here}
