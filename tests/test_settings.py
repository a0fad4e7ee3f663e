"""Settings: where they come from, what is refused, what is shown."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from dispatch_controller.cli.settings_page import settings_page
from dispatch_controller.executors import SHIPPED, command
from dispatch_controller.model import ExecutorMode
from dispatch_controller.settings import Settings, SettingsError, load_settings, origins
from dispatch_controller.settings_report import HIDDEN, secret_name
from dispatch_controller.settings_sections import LOOP_INTERVALS, is_loopback

DOCS = Path(__file__).parent.parent / "docs"


def load(
    home: Path, environ: dict[str, str] | None = None, file: str = "", **flags: object
) -> Settings:
    (home / "dispatch.toml").write_text(file)
    return load_settings(home, flags, environ or {})


def problems(home: Path, environ: dict[str, str] | None = None, file: str = "") -> str:
    with pytest.raises(SettingsError) as caught:
        load(home, environ, file)
    return "\n".join(caught.value.problems)


def test_defaults_are_those_of_the_contracts(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={})
    assert (settings.host, settings.port, settings.grace) == ("127.0.0.1", 8080, 30)
    assert {n: getattr(settings.loops, n).interval for n in LOOP_INTERVALS} == {
        "scheduling": 10,
        "health_check": 15,
        "probe_workers": 30,
        "db_sync": 30,
        "reaper": 60,
        "guardian": 300,
        "factory": 60,
    }
    assert (settings.retry.base, settings.retry.limit) == (120, 3600)
    ssh = settings.ssh
    assert (ssh.connect_timeout, ssh.command_timeout, ssh.transfer_timeout) == (10, 30, 60)
    assert settings.specs == tmp_path / "specs"
    assert settings.stuck_after == 1800


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = "port = 1\ngrace = 1\nstuck_after = 1\n"
    environ = {"CONTROLLER_PORT": "2", "DISPATCH_GRACE": "2"}
    settings = load(tmp_path, environ, file, port=3)
    assert (settings.port, settings.grace, settings.stuck_after) == (3, 2, 1)
    assert settings.log_level == "info"


def test_a_table_may_be_set_in_part_from_each_place(tmp_path: Path) -> None:
    file = "[loops.reaper]\nenabled = false\n"
    settings = load(tmp_path, {"DISPATCH_LOOPS__GUARDIAN__INTERVAL": "7"}, file)
    assert settings.loops.reaper.interval == 60
    assert not settings.loops.reaper.enabled
    assert settings.loops.guardian.interval == 7
    assert settings.loops.guardian.enabled


def test_lists_in_the_environment_are_json(tmp_path: Path) -> None:
    environ = {"DISPATCH_LEGACY_WORKER_NETWORKS": '["10.0.0.0/8", "fd00::/8"]'}
    assert load(tmp_path, environ).legacy_worker_networks == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("fd00::/8"),
    )
    told = problems(tmp_path, {"DISPATCH_LEGACY_WORKER_NETWORKS": "10.0.0.0/8"})
    assert "environment DISPATCH_LEGACY_WORKER_NETWORKS" in told
    assert "JSON" in told


def test_kept_names_are_understood(tmp_path: Path) -> None:
    environ = {
        "DISPATCH_HOME": str(tmp_path),
        "DISPATCH_SPECS": "/a/specs",
        "DISPATCH_PROJECTS": "/a/projects",
        "CONTROLLER_PORT": "9000",
    }
    settings = load_settings(environ=environ)
    assert settings.home == tmp_path
    assert settings.specs == Path("/a/specs")
    assert settings.projects == Path("/a/projects")
    assert settings.port == 9000


def test_two_names_for_the_port_must_agree(tmp_path: Path) -> None:
    told = problems(tmp_path, {"CONTROLLER_PORT": "1", "DISPATCH_PORT": "2"})
    assert "CONTROLLER_PORT=1 and DISPATCH_PORT=2" in told
    assert load(tmp_path, {"CONTROLLER_PORT": "1", "DISPATCH_PORT": "1"}).port == 1


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert load(tmp_path, {"DISPATCH_API_TOKEN": "", "CONTROLLER_PORT": ""}).api_token is None


def test_the_home_is_the_option_then_the_variable_then_what_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings(environ={}).home == tmp_path / "dispatch-home"
    (tmp_path / "Downloads" / "dispatch").mkdir(parents=True)
    assert load_settings(environ={}).home == tmp_path / "Downloads" / "dispatch"
    named = {"DISPATCH_HOME": "/named"}
    assert load_settings(environ=named).home == Path("/named")
    assert load_settings(Path("/option"), environ=named).home == Path("/option")


def test_all_problems_are_told_at_once_with_place_and_name(tmp_path: Path) -> None:
    file = (
        'grce = 3\nwebhook_url = "mail"\nport = "http"\n[loops.reaper]\ninterval = 0\n'
        "[ssh]\nmax_chanels = 2\n[retry]\nbase = 100\nlimit = 10\n"
    )
    environ = {
        "DISPATCH_HOST": "0.0.0.0",
        "DISPATCH_LOOPS__REEPER__INTERVAL": "4",
        "DISPATCH_NO_SUCH": "1",
        "DISPATCH_PORT__X": "1",
        "DISPATCH_SSH__CONFIG": "relative",
        "DISPATCH_TLS_KEY": "/nowhere/key.pem",
    }
    told = problems(tmp_path, environ, file)
    toml = str(tmp_path / "dispatch.toml")
    for part in (
        f"{toml}: grce: no such setting (did you mean grace?)",
        f"{toml}: webhook_url: write an address",
        f"{toml}: port: ",
        f"{toml}: loops.reaper.interval: Input should be greater than 0",
        f"{toml}: ssh.max_chanels: no such setting (did you mean ssh.max_channels?)",
        f"{toml}: retry.limit: must not be less than retry.base",
        "environment DISPATCH_LOOPS__REEPER__INTERVAL: loops.reeper: no such setting (did you mean",
        "environment DISPATCH_NO_SUCH: no such setting; if it is another program's: add it to",
        "environment DISPATCH_PORT__X: no such setting",
        "environment DISPATCH_SSH__CONFIG: ssh.config: write an absolute path",
        "api_token: host 0.0.0.0 is reachable from other machines",
        "tls_key: set both",
    ):
        assert part in told
    assert len(told.splitlines()) == 12


def test_variables_of_other_programs_can_be_named(tmp_path: Path) -> None:
    environ = {"DISPATCH_OLD_DB": "x"}
    assert "DISPATCH_OLD_DB: no such setting" in problems(tmp_path, environ)
    assert load(tmp_path, environ, 'other_variables = ["DISPATCH_OLD_DB"]')
    assert "other_variables: Input should be" in problems(tmp_path, file="other_variables = 3")


def test_a_file_that_is_no_toml_or_names_the_home_is_refused(tmp_path: Path) -> None:
    assert "dispatch.toml: not TOML" in problems(tmp_path, file="port = = 3")
    assert "--home" in problems(tmp_path, file='home = "/x"')


def test_a_token_is_read_from_its_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-value\n")
    file = f'host = "0.0.0.0"\napi_token_file = "{token}"\n'
    settings = load(tmp_path, file=file)
    assert settings.api_token == SecretStr("s3cret-value")
    assert "both set" in problems(tmp_path, {"DISPATCH_API_TOKEN": "other"}, file)
    token.write_text("\n")
    assert "is empty" in problems(tmp_path, file=file)
    token.unlink()
    assert "cannot be read" in problems(tmp_path, file=file)


def test_tls_files_must_exist(tmp_path: Path) -> None:
    file = 'tls_certificate = "/nowhere/c.pem"\ntls_key = "/nowhere/k.pem"\n'
    told = problems(tmp_path, file=file)
    assert "tls_certificate: /nowhere/c.pem" in told
    assert "tls_key: /nowhere/k.pem" in told


def test_origins_name_value_and_place_and_hide_secrets(tmp_path: Path) -> None:
    file = (
        'webhook_url = "https://hooks.example.net/T0/secret"\n'
        "[executors.claude.modes.proxy]\n"
        'env = { ANTHROPIC_AUTH_TOKEN = "tok", ANTHROPIC_BASE_URL = "https://x" }\n'
    )
    environ = {"DISPATCH_API_TOKEN": "s3cret", "CONTROLLER_PORT": "1", "DISPATCH_GRACE": "2"}
    settings = load(tmp_path, environ, file, host="127.0.0.2")
    rows = {row.name: row for row in origins(settings)}
    assert rows["host"].source == "command line"
    assert rows["home"].source == "command line"
    assert rows["port"].source == "environment CONTROLLER_PORT"
    assert rows["grace"].source == "environment DISPATCH_GRACE"
    assert rows["loops.reaper.interval"].source == "default"
    assert rows["webhook_url"].source == str(tmp_path / "dispatch.toml")
    assert rows["webhook_url"].value == HIDDEN
    assert rows["api_token"].value == HIDDEN
    assert rows["executors.claude.modes.proxy.env"].value == {
        "ANTHROPIC_AUTH_TOKEN": HIDDEN,
        "ANTHROPIC_BASE_URL": "https://x",
    }
    hook = "https://hooks.example.net/T0/secret"
    assert settings.secrets() == ["s3cret", hook, "tok"]
    shown = json.dumps([row.value for row in rows.values()]) + repr(settings)
    assert "s3cret" not in shown
    assert "T0/secret" not in shown


def test_a_refused_secret_is_not_shown(tmp_path: Path) -> None:
    told = problems(tmp_path, {"DISPATCH_API_TOKEN": "has blanks"}, 'webhook_url = "s3cret"')
    assert "api_token: must be printable" in told
    assert "has blanks" not in told
    assert "s3cret" not in told
    told = problems(tmp_path, file='[executors.x.modes.direct.env]\nAPI_TOKEN = "s3cret"\n')
    assert "executors.x: needs either argv or same_as" in told
    assert "s3cret" not in told


def test_settings_are_frozen_and_building_them_reads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DISPATCH_PORT", "1")
    loops: Any = {"reaper": {"interval": 5}}
    settings = Settings(home=Path("/x"), loops=loops)
    assert settings.port == 8080
    assert settings.loops.reaper.interval == 5
    with pytest.raises(ValidationError):
        settings.port = 2


def test_importing_reads_nothing() -> None:
    code = (
        "import builtins, os, sys\n"
        "import dispatch_controller.settings_sources, pydantic_settings, difflib\n"
        "def no(event, args):\n"
        "    name = str(args[0]) if event == 'open' else ''\n"
        "    if name.endswith(('.toml', '.json')): sys.exit(name)\n"
        "sys.addaudithook(no)\n"
        "import dispatch_controller.settings\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"DISPATCH_PORT": "no"})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("mini.local", False),
        ("localhost.example.net", False),
    ],
)
def test_loopback_is_this_machine_only(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_names_of_secrets_are_known() -> None:
    for name in ("api_token", "ANTHROPIC_API_KEY", "password", "X-Auth-Token", "webhook_url"):
        assert secret_name(name)
    for name in ("tokens", "token_count", "task", "key", "lease"):
        assert not secret_name(name)


def test_every_shipped_executor_gives_a_command() -> None:
    executors = Settings(home=Path("/x")).executors
    assert set(executors) == set(SHIPPED)
    for name in executors:
        made = command(executors, name, "direct")
        assert made is not None
        assert made.name == name
        assert made.argv
        assert made.stdin or any("{" in argument for argument in made.argv)
    glm, opencode = command(executors, "glm", "direct"), command(executors, "opencode", "direct")
    assert glm and opencode and glm.argv == opencode.argv
    assert command(executors, "nobody", "direct") is None


def test_an_executor_is_changed_key_by_key_and_added_by_settings(tmp_path: Path) -> None:
    file = (
        '[executors.claude]\nrate_limit = "slow down"\n'
        '[executors.glm]\nargv = ["glm", "{spec}"]\n'
        '[executors.mine]\nargv = ["mine", "{prompt}"]\n'
    )
    executors = load(tmp_path, file=file).executors
    assert executors["claude"].argv[0] == "claude"
    assert executors["claude"].rate_limit == "slow down"
    assert executors["glm"].argv == ("glm", "{spec}")
    assert executors["mine"].argv == ("mine", "{prompt}")


def test_modes_follow_the_fallback_for_two_hops_at_most() -> None:
    modes: dict[str, Any] = {
        "a": {"fallback": "b", "env": {"X": "1"}},
        "b": {"fallback": "c", "env_files": {"KEY": "~/key"}},
        "c": {"fallback": "a"},
    }
    given: Any = {"e": {"argv": ["e"], "modes": modes}}
    executors = Settings(home=Path("/x"), executors=given).executors
    made = command(executors, "e", "a")
    assert made is not None
    assert made.modes == (
        ExecutorMode("a", {"X": "1"}),
        ExecutorMode("b", {}, {"KEY": "~/key"}),
        ExecutorMode("c"),
    )
    other = command(executors, "e", "unlisted")
    assert other is not None
    assert other.modes == (ExecutorMode("unlisted"),)


@pytest.mark.parametrize(
    ("toml", "part"),
    [
        ("[executors.x]\nstdin = true", "executors.x: needs either argv or same_as"),
        ('[executors.x]\nsame_as = "nobody"', "nobody is not an executor"),
        ('[executors.x]\nargv = ["x"]\nlogin = "("', "executors.x.login: not a regular"),
    ],
)
def test_an_executor_that_cannot_run_is_refused(tmp_path: Path, toml: str, part: str) -> None:
    assert part in problems(tmp_path, file=toml)


def test_names_of_agent_variables_do_not_lose_their_case_silently(tmp_path: Path) -> None:
    name = "DISPATCH_EXECUTORS__CLAUDE__MODES__PROXY__ENV__BASE_URL"
    assert f"{name}: set it in dispatch.toml" in problems(tmp_path, {name: "x"})
    as_json = {"DISPATCH_EXECUTORS__CLAUDE__MODES": '{"proxy": {"env": {"BASE_URL": "x"}}}'}
    assert load(tmp_path, as_json).executors["claude"].modes["proxy"].env == {"BASE_URL": "x"}


def test_the_page_of_settings_is_what_the_program_makes() -> None:
    page = (DOCS / "settings.md").read_text("utf-8")
    assert page == settings_page(), (
        "docs/settings.md is old: dispatch-controller config --markdown > docs/settings.md"
    )
    for row in origins(Settings(home=Path("/x"))):
        if not row.name.startswith("executors."):
            assert f"| `{row.name}` |" in page
