"""The pages of reference that `make docs` makes from the code are complete, and their links hold."""

import json
import posixpath
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import pytest
from jsonschema_rs import validator_for

from cli.command_line import SUBCOMMANDS
from cli.reference_pages import reference_pages
from dev.data_folder import ROOT
from dev.docs_site import REFERENCE, pages
from projector.webhooks.delivery import PING_TYPE, event_body, ping_body
from shared.log.events import EVENT_TYPES
from shared.log.read import StoredEvent
from shared.privacy.encryption import personal_fields

GOLDEN: Final = json.loads((ROOT / "tests/shared/golden/events.json").read_text())
CURRENT: Final = [each for each in GOLDEN if each["schema_version"] == EVENT_TYPES[each["type"]].schema_version]
"""The golden events of the version that is written today."""
RECORDED_AT: Final = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
PROBLEM: Final = "application/problem+json"

Pages = Mapping[str, str]


@pytest.fixture(scope="module")
def made() -> Pages:
    return reference_pages()


def test_each_page_of_reference_that_the_navigation_names_is_made(made: Pages) -> None:
    assert set(REFERENCE.values()) == {path for path in made if path.endswith(".md")}


def test_each_operation_of_both_apis_has_its_route_its_parameters_and_its_problems(made: Pages) -> None:
    for name in ("command", "query"):
        sections = re.split(r"^## .+\n\n", made[f"reference/{name}-api.md"], flags=re.MULTILINE)[1:]
        document = json.loads(made[f"reference/{name}-api.openapi.json"])
        routes = [(f"{method.upper()} {path}", each) for path, item in document["paths"].items() for method, each in item.items()]
        assert len(routes) > 40
        for section, (route, operation) in zip(sections, routes, strict=True):
            assert section.startswith(f"`{route}`\n")
            assert [each for each in _named_by(operation) if f"`{each}`" not in section] == [], route


def _named_by(operation: Mapping[str, Any]) -> list[str]:
    """Its parameters and the codes of its problems."""
    contents = [answer.get("content", {}) for answer in operation["responses"].values()]
    codes = [code for content in contents for code in content.get(PROBLEM, {}).get("examples", ())]
    return [*codes, *(parameter["name"] for parameter in operation.get("parameters", ()))]


def test_each_page_and_each_type_that_a_page_of_reference_links_to_is_there(made: Pages) -> None:
    there = {**pages(), **made}
    links = [link for path in REFERENCE.values() for link in re.findall(r"\]\(([^)#]+)#?([^)]*)\)", made[path])]
    assert len(links) > 200
    for link, anchor in set(links):
        text = there[posixpath.normpath(posixpath.join("reference", link))]
        assert not anchor or re.search(rf"^## `{anchor}`$", text, re.MULTILINE | re.IGNORECASE), (link, anchor)


def test_each_event_of_the_log_is_valid_under_the_schema_of_its_type(made: Pages) -> None:
    schema = json.loads(made["reference/event-types.schema.json"])
    assert {each["type"] for each in CURRENT} == EVENT_TYPES.keys()
    for each in CURRENT:
        validator = validator_for({**schema, "$ref": f"#/$defs/{each['type']}"})
        assert validator.is_valid(each["data"]), each
        assert not validator.is_valid({**each["data"], "unknown": 1})


def test_what_a_webhook_sends_is_a_message_of_the_asyncapi_document(made: Pages) -> None:
    """Its `data` is the message of the stream of events."""
    document = json.loads(made["reference/events.asyncapi.json"])
    sent = {f"{each['type']}Delivery": event_body(_stored(each)) for each in CURRENT}
    sent[PING_TYPE] = ping_body("main", RECORDED_AT)
    assert document["channels"]["events"]["messages"].keys() == EVENT_TYPES.keys()
    assert document["channels"]["deliveries"]["messages"].keys() == sent.keys()
    for name, body in sent.items():
        validator = validator_for({**document, "$ref": f"#/components/messages/{name}/payload"})
        assert validator.is_valid(json.loads(body)), name
        assert not validator.is_valid(json.loads(body) | {"type": "Unknown"})


def _stored(golden: Mapping[str, Any]) -> StoredEvent:
    data = json.dumps(golden["data"])
    return StoredEvent("main", 1, str(UUID(int=1)), golden["type"], golden["schema_version"], data, "{}", RECORDED_AT, bytes(32))


def test_personal_members_of_events_are_shown_as_encrypted(made: Pages) -> None:
    sections = re.split(r"^## `(\w+)`\n", made["reference/event-types.md"], flags=re.MULTILINE)
    described = dict(zip(sections[1::2], sections[2::2], strict=True))
    for name, event in EVENT_TYPES.items():
        marked = re.findall(r"^\| `(\w+)` \| \[Encrypted\]", described[name], re.MULTILINE)
        assert set(marked) == personal_fields(event).keys()


def test_each_subcommand_is_shown_with_its_help(made: Pages) -> None:
    page = made[REFERENCE["Command line"]]
    assert {name for name in SUBCOMMANDS if f"\n## daybook {name}\n" not in page} == set()
    assert page.count("\n## daybook") == page.count("\n```text\nUsage: daybook")
    assert str(ROOT) not in page
