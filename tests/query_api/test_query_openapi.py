"""The query API's OpenAPI document is complete and matches real answers, and no request that it describes is a 500."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from jsonschema_rs import validator_for

from query_api.app import create_app, router
from query_api.requests import QueryRoute
from shared.identity import audit_records
from shared.identity.audit_records import ActCaller
from shared.proof import verifications
from shared.read_models import operations
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from shared.webhooks import store as webhooks
from shared.webhooks.store import WebhookPlace
from tests.harness.fuzz import UNLIMITED, fuzz
from tests.harness.log import MASTER_KEY, Book
from tests.harness.questions import projecting, query_api
from tests.harness.running import run_stack


def an_app() -> FastAPI:
    """An app that never starts, so that it connects to nothing."""
    return create_app(
        Settings(
            database_url="postgresql://u:p@127.0.0.1:1/x",
            mongo_url="mongodb://127.0.0.1:1/",
            redis_url="redis://127.0.0.1:1/0",
            secret="a secret of the tests and of nothing else",
            master_keys=MASTER_KEY,
        )
    )


DOCUMENT: dict[str, Any] = an_app().openapi()
OPERATIONS = {
    operation["operationId"]: (path, operation) for path, item in DOCUMENT["paths"].items() for operation in item.values()
}
QUERIES = [route.name for route in router.routes if isinstance(route, QueryRoute)]
REPORTS = {"report_users", "report_totals", "report_entries", "search", "get_timeline"}  # see their own tests
PROOFS = {"get_receipt", "list_seals", "get_consistency"}
ELSEWHERE = {"list_refusals", "stream_events", "list_projection_dead_letters", "get_doctor"}
"""See `test_denials`, `test_push`, `test_requested_operations` and `test_keys_for_all_ledgers`."""
"""Operations that need a sealed log: see `test_receipts`."""


def resolved(schema: Any) -> Any:
    """The schema with each reference replaced by the component that it names."""
    match schema:
        case {"$ref": str(reference)}:
            return resolved(DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]])
        case dict():
            return {name: resolved(value) for name, value in schema.items()}
        case list():
            return [resolved(value) for value in schema]
    return schema


def answer_schema(operation_id: str) -> Any:
    return resolved(OPERATIONS[operation_id][1]["responses"]["200"]["content"]["application/json"]["schema"])


def conforms(operation_id: str, body: Any) -> None:
    errors = [f"{error.instance_path}: {error.message}" for error in validator_for(answer_schema(operation_id)).iter_errors(body)]
    assert errors == []


def test_every_route_is_documented() -> None:
    assert len(QUERIES) == len(set(QUERIES)) >= 14
    assert set(QUERIES) <= set(OPERATIONS)
    assert all(isinstance(route, APIRoute) for route in router.routes)


@pytest.mark.parametrize("operation_id", QUERIES)
def test_every_operation_has_a_description_an_example_and_its_problems(operation_id: str) -> None:
    path, operation = OPERATIONS[operation_id]
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    answer = operation["responses"]["200"]
    if operation_id == "stream_events":  # a stream has no end and so no position of the answer
        assert "data: {" in answer["content"]["text/event-stream"]["example"]
    else:
        conforms(operation_id, answer["content"]["application/json"]["example"])
        # Currencies are the same for ever, and a caller is not in the log.
        assert "Daybook-Position" in answer["headers"] or operation_id in {"list_currencies", "get_caller", "get_doctor"}
    codes = {code for status, problem in operation["responses"].items() for code in _codes(status, problem)}
    assert {"validation-failed", "not-found", "store-unavailable"} <= codes
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert ("cursor-invalid" in codes) == ("cursor" in names)
    assert ("rebuilding" in codes) <= ({"Daybook-Min-Position", "Prefer"} <= names)
    assert {name for name in names if "{" + name + "}" in path} == {part[1:-1] for part in path.split("/") if part[:1] == "{"}
    assert "Daybook-Ledger" in names


def _codes(status: str, response: dict[str, Any]) -> Iterator[str]:
    problems = response.get("content", {}).get("application/problem+json", {}).get("examples", {})
    for code, example in problems.items():
        assert str(example["value"]["status"]) == status
        yield code


def test_no_answer_that_fastapi_makes_by_itself_is_documented() -> None:
    assert "HTTPValidationError" not in json.dumps(DOCUMENT)


@pytest.mark.services
async def test_real_answers_match_the_openapi_document(settings: Settings) -> None:
    book = Book(4)
    history = list(book.history(150))
    account_id, user_id = next(iter(book.accounts)), next(iter(book.emails))
    transfer_id = next(event.transfer_id for event in reversed(history) if hasattr(event, "transfer_id"))
    names = {"account_id": account_id, "user_id": user_id, "transfer_id": transfer_id}
    hold_id = next(event.hold_id for event in history if hasattr(event, "hold_id"))
    names |= {"stream": f"account-{account_id}", "name": "balances", "hold_id": hold_id, "ledger_id": "main"}
    payer, payee = (book.open_account(user_id) for _ in range(2))
    planned = book.plan(payer, payee.account_id, 5)
    run, closed = book.run(planned, 1, planned.next_run.due_at), book.close_day()
    history += [payer, payee, book.deposit(payer.account_id, 5), planned, run, closed]
    place = WebhookPlace("main", book.new_id())
    names |= {"webhook_id": place.webhook_id, "schedule_id": planned.schedule_id, "day": closed.day}
    async with query_api(settings) as api, projecting(api, settings):
        await api.record(history)
        async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
            await audit_records.record(connection, "main", "login-denied", {"user_id": user_id}, ActCaller(None))
            await webhooks.insert(connection, place, "https://example.com", [], [], b"secret", "key")
            await webhooks.request_delivery(connection, place, book.new_id(), "WebhookTested")
            names["verification_id"] = book.new_id()
            await verifications.request(connection, "main", names["verification_id"], "why", "operator")
            names["operation_id"] = book.new_id()
            await operations.request(connection, "main", names["operation_id"], "users", "rebuild", None, "why", "operator")
        for operation_id in set(QUERIES) - PROOFS - REPORTS - ELSEWHERE:
            path = OPERATIONS[operation_id][0].format(**names)
            body = await api.get(path)
            conforms(operation_id, body)
            assert body if isinstance(body, list) else body.get("items", [None]) != []
        conforms("get_stats", await api.get("/v1/stats", {"currency": "EUR"}))


@pytest.mark.services
@pytest.mark.proof(5, 500)
async def test_no_request_is_answered_with_a_500(settings: Settings, tmp_path: Path, repetitions: int) -> None:
    async with run_stack(settings.model_copy(update=UNLIMITED), tmp_path, DAYBOOK_QUERY_WAIT_MAX_MS="20") as stack:
        # A stream has no end to wait for: see `test_push`.
        passed, failures = await asyncio.to_thread(fuzz, DOCUMENT, stack.query.url, repetitions, ["/v1/events/stream"])
    assert failures == []
    assert passed > len(QUERIES)
