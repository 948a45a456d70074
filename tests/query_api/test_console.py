"""The console's page and files, without a browser: what is served, under which policy, and the rules that it knows."""

import hashlib
import json
import re
from typing import Any, Final

import pytest

import command_api.app
import query_api.app
from query_api.console import FOLDER, content_policy
from shared.identity.access import SCOPES
from shared.settings import Settings
from tests.harness.clients import client_of
from tests.harness.keys import add_key, bearer

VENDORED: Final = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""The SHA-256 of the files of uPlot 1.6.32, as npm has them."""
OURS: Final = sorted(path for path in FOLDER.iterdir() if path.suffix in {".js", ".css", ".html"} and path.name not in VENDORED)


def known_rules() -> dict[str, Any]:
    text = (FOLDER / "rules.js").read_text(encoding="utf-8")
    table = text.partition("const RULES = ")[2].partition(";\n")[0]
    rules: dict[str, Any] = json.loads(re.sub(r",(\s*[}\]])", r"\1", table))
    return rules


async def test_the_page_loads_only_what_the_query_api_serves(settings: Settings) -> None:
    async with client_of(query_api.app.create_app(settings), token="") as client:
        answer = await client.get("/console")
        loaded = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
        modules = {f"console/{path.name}" for path in FOLDER.glob("*.js")}
        assert {"console/console.js", "console/uPlot.iife.min.js"} <= {*loaded}
        for name in {*loaded, *modules}:
            found = await client.get(f"/{name}")
            assert (found.status_code, found.headers["x-content-type-options"]) == (200, "nosniff"), name
        for wrong in ("console.html", "..%2f__init__.py", "nothing.js"):
            assert (await client.get(f"/console/{wrong}")).json()["code"] == "not-found"


async def test_the_policy_allows_no_inline_script_and_no_other_server(settings: Settings) -> None:
    named = settings.model_copy(update={"command_url": "https://commands.example:8443/daybook"})
    async with client_of(query_api.app.create_app(named), token="") as client:
        answer = await client.get("/console")
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["connect-src"] == "'self' https://commands.example:8443"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert not re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", answer.text)
        assert 'content="https://commands.example:8443/daybook"' in answer.text
        assert "default-src 'none'; frame-ancestors" in (await client.get("/livez")).headers["content-security-policy"]
    assert "$" not in content_policy("http://127.0.0.1:8000")


def test_no_file_of_the_console_names_another_server() -> None:
    addresses = [
        (path.name, found) for path in OURS for found in re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]+", path.read_text())
    ]
    assert not [found for found in addresses if "www.w3.org" not in found[1]]


@pytest.mark.parametrize("name", VENDORED)
def test_vendored_files_are_the_published_ones_with_their_licence(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == VENDORED[name]
    assert "MIT License" in (FOLDER / "uPlot.LICENSE.txt").read_text()


def test_text_from_an_api_cannot_become_markup() -> None:
    dangerous = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc")
    assert len(OURS) > 15
    assert not [path.name for path in OURS if dangerous.search(path.read_text(encoding="utf-8"))]


@pytest.mark.slow
def test_the_console_knows_the_access_rules_of_both_apis(settings: Settings) -> None:
    """Otherwise it would show what is denied, or hide what is allowed."""
    stated: dict[str, Any] = {}
    for module in (command_api.app, query_api.app):
        for path, operations in module.create_app(settings).openapi()["paths"].items():
            stated |= {f"{method.upper()} {path}": operation.get("x-access") for method, operation in operations.items()}
    rules = known_rules()
    assert len(rules) > 30
    for operation, rule in rules.items():
        access = stated[operation]
        for_all = [True] if access.get("all_ledgers") else []
        assert [access["scopes"], access["customers"], *for_all] == rule, operation
        assert access["operators"], "the console's table has no place for a rule that excludes operators"


def test_every_rule_is_used() -> None:
    used = "".join(path.read_text(encoding="utf-8") for path in OURS if path.name != "rules.js")
    assert not [operation for operation in known_rules() if operation not in used]


async def test_the_caller_learns_who_it_is_and_what_it_may_do(settings: Settings) -> None:
    auditor = await add_key(settings.database_url, "auditor", scopes=["events:read", "ledger:read"])
    everywhere = await add_key(settings.database_url, "platform", scopes=["ops:admin"], ledger_id="*")
    other = await add_key(settings.database_url, "other", scopes=["ledger:read"], ledger_id="acme")
    async with client_of(query_api.app.create_app(settings)) as client:
        answer = (await client.get("/v1/caller")).json()
        assert answer == {
            "principal": "operator", "ledger_id": "main", "all_ledgers": False, "user_id": None, "scopes": list(SCOPES),
        }  # fmt: skip
        assert (await client.get("/v1/caller", headers=bearer(auditor))).json()["scopes"] == ["ledger:read", "events:read"]
        named = await client.get("/v1/caller", headers=bearer(everywhere) | {"daybook-ledger": "acme"})
        assert (named.json()["ledger_id"], named.json()["all_ledgers"]) == ("acme", True)
        assert (await client.get("/v1/caller", headers=bearer(other))).json()["ledger_id"] == "acme"
        assert (await client.get("/v1/caller", headers=bearer(other) | {"daybook-ledger": "main"})).status_code == 404
        assert (await client.get("/v1/caller", headers=bearer("dbk_aaaaaaaaaa_no"))).status_code == 401
