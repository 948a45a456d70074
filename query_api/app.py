"""The routes of the query API: what each question is called in HTTP.

A route is one line that asks `queries` (or, about events themselves, `events`) and answers with what was found. `parameters` says
what may be asked, `answers` what comes back, and `requests` reads the one and writes the other.
"""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, Final, TypedDict

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.sse import EventSourceResponse
from prometheus_client.core import GaugeMetricFamily, Metric

from query_api import answers, audit, events, progress, proofs, queries
from query_api.answers import as_of, page_of
from query_api.cursors import Cursors
from query_api.export import export_user as export_all_of_user
from query_api.parameters import (
    AccountParameters,
    ActivityParameters,
    ConsistencyParameters,
    EntryParameters,
    EventParameters,
    ProjectionName,
    PushParameters,
    RefusalParameters,
    SealParameters,
    SealPosition,
    StatisticsParameters,
    StreamId,
    StreamParameters,
    TransferParameters,
    UserParameters,
)
from query_api.push import EVENT_STREAM, PUSH_EXAMPLE, push
from query_api.reading import SWITCH_SECONDS, AsOf, Reader
from query_api.requests import (
    ANSWER_HEADERS,
    IF_NONE_MATCH,
    JSON_LINES,
    LAST_EVENT_ID,
    LEDGER_HEADER,
    PAGE_HEADERS,
    QUESTION_HEADERS,
    VERSIONED_HEADERS,
    QueryApp,
    QueryRoute,
    Question,
)
from query_api.tail import Tails
from shared.access import Rule, only, own_or
from shared.connections import open_mongo, open_postgres, open_redis, require_lasting_redis, require_schema
from shared.doctor import require_safe
from shared.events import timestamp
from shared.fields import Id
from shared.garbage import calm_collector
from shared.gate import Gate
from shared.health import Check, ask_postgres, ask_redis, health_router
from shared.http import prepare, problem_responses
from shared.logs import say
from shared.metrics import Requests, metrics_router
from shared.pace import read_report
from shared.person_keys import PersonKeys
from shared.refusals import Refusals
from shared.seal_store import last_sealed_at
from shared.settings import Settings, settings_or_exit

router = APIRouter(prefix="/v1", route_class=QueryRoute)

ANY_QUESTION: Final = ("unauthorized", "forbidden", "rate-limited", "validation-failed", "not-found", "store-unavailable")
READ_MODEL: Final = (*ANY_QUESTION, "rebuilding", "projection-behind")
LOG: Final = (*ANY_QUESTION, "projection-behind")


PROGRESS: Final = only("ledger:read", "ops:admin")


def documented(
    shape: Any,
    example: dict[str, Any],
    *problems: str,
    access: Rule,
    headers: Sequence[dict[str, Any]] = QUESTION_HEADERS,
    answer_headers: dict[str, Any] = ANSWER_HEADERS,
) -> dict[str, Any]:
    """What the documentation of all questions has in common."""
    answer = {"content": {"application/json": {"example": example}}, "headers": answer_headers}
    return {
        "response_model": shape,
        "openapi_extra": {"parameters": list(headers), **access.documented()},
        "responses": {200: answer, **problem_responses(*problems)},
    }


def documented_one(shape: Any, example: dict[str, Any], *, access: Rule) -> dict[str, Any]:
    """One thing that has versions."""
    headers = [*QUESTION_HEADERS, IF_NONE_MATCH]
    arguments = documented(shape, as_of(example), *READ_MODEL, access=access, headers=headers, answer_headers=VERSIONED_HEADERS)
    arguments["responses"][304] = {"description": "The caller has this version already."}
    return arguments


def documented_page(item: Any, example: dict[str, Any], *problems: str, access: Rule) -> dict[str, Any]:
    return documented(
        answers.Page[item], page_of(example), *problems, "cursor-invalid", access=access, answer_headers=PAGE_HEADERS
    )


# ── users ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get(
    "/users", tags=["users"], **documented_page(answers.UserItem, answers.USER_EXAMPLE, *READ_MODEL, access=own_or("ledger:read"))
)
async def list_users(question: Question, parameters: Annotated[UserParameters, Query()]) -> Response:
    """List users, in the order in which they were created unless told otherwise."""
    found = await queries.list_users(question.view(), parameters, question.key(parameters))
    return question.page(found, parameters)


@router.get(
    "/users/{user_id}", tags=["users"], **documented_one(answers.UserAnswer, answers.USER_EXAMPLE, access=own_or("ledger:read"))
)
async def get_user(question: Question, user_id: Id) -> Response:
    """Get a user."""
    return question.one(await queries.get_user(question.view(), user_id))


@router.get(
    "/users/{user_id}/export",
    tags=["users"],
    **documented(answers.ExportAnswer, as_of(answers.EXPORT_EXAMPLE), *READ_MODEL, access=own_or("ledger:read")),
)
async def export_user(question: Question, user_id: Id) -> Response:
    """Get everything that is held about a person: profile, accounts, transfers, and the events about them, opened."""
    return question.streamed(await export_all_of_user(question.view(), question.state.person_keys, user_id), f"user-{user_id}")


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get(
    "/accounts",
    tags=["accounts"],
    **documented_page(answers.AccountItem, answers.ACCOUNT_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")),
)
async def list_accounts(question: Question, parameters: Annotated[AccountParameters, Query()]) -> Response:
    """List accounts with their balances. Ordered by balance, an account whose balance changes between two pages may move."""
    found = await queries.list_accounts(question.view(), parameters, question.key(parameters))
    return question.page(found, parameters)


@router.get(
    "/accounts/{account_id}",
    tags=["accounts"],
    **documented_one(answers.AccountAnswer, answers.ACCOUNT_EXAMPLE, access=own_or("ledger:read")),
)
async def get_account(question: Question, account_id: Id) -> Response:
    """Get an account with its balance."""
    return question.one(await queries.get_account(question.view(), account_id))


@router.get(
    "/accounts/{account_id}/balance",
    tags=["accounts"],
    **documented(answers.BalanceAnswer, as_of(answers.BALANCE_EXAMPLE), *READ_MODEL, access=own_or("ledger:read")),
)
async def get_balance(question: Question, account_id: Id) -> Response:
    """Get the balance of an account."""
    return question.one(await queries.get_balance(question.view(), account_id))


@router.get(
    "/accounts/{account_id}/entries",
    tags=["accounts"],
    **documented_page(answers.EntryItem, answers.ENTRY_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")),
)
async def list_entries(question: Question, account_id: Id, parameters: Annotated[EntryParameters, Query()]) -> Response:
    """List what moved on an account, newest first, each entry with the balance after it."""
    found = await queries.list_entries(question.view(), account_id, parameters, question.key(parameters))
    return question.page(found, parameters)


# ── transfers ────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get(
    "/transfers",
    tags=["transfers"],
    **documented_page(answers.TransferAnswer, answers.TRANSFER_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")),
)
async def list_transfers(question: Question, parameters: Annotated[TransferParameters, Query()]) -> Response:
    """List transfers, deposits and withdrawals, newest first unless told otherwise."""
    found = await queries.list_transfers(question.view(), parameters, question.key(parameters))
    return question.page(found, parameters)


@router.get(
    "/transfers/{transfer_id}",
    tags=["transfers"],
    **documented(answers.TransferAnswer, answers.TRANSFER_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")),
)
async def get_transfer(question: Question, transfer_id: Id) -> Response:
    """Get a transfer, a deposit or a withdrawal. Its `position` is its own; that of the answer is in `Daybook-Position`."""
    return question.one(await queries.get_transfer(question.view(), transfer_id))


@router.get(
    "/transfers/{transfer_id}/receipt",
    tags=["proof"],
    **documented(answers.ReceiptAnswer, answers.RECEIPT_EXAMPLE, *LOG, "not-sealed-yet", access=only("ledger:read")),
)
async def get_receipt(question: Question, transfer_id: Id) -> Response:
    """Get the proof that a transfer, a deposit or a withdrawal is in the sealed log, to be checked without us.

    Not for customers: the event that it proves holds the balances of both sides.
    """
    return question.one(await proofs.get_receipt(question.view(), transfer_id))


# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get(
    "/stats",
    tags=["statistics"],
    **documented(answers.StatisticsAnswer, as_of(answers.STATISTICS_EXAMPLE), *READ_MODEL, access=only("ledger:read")),
)
async def get_stats(question: Question, parameters: Annotated[StatisticsParameters, Query()]) -> Response:
    """Count users, accounts and transfers, and sum up the balances of each currency."""
    return question.one(await queries.get_statistics(question.view(), parameters))


@router.get(
    "/activity",
    tags=["statistics"],
    **documented(answers.Page[answers.Activity], page_of(answers.ACTIVITY_EXAMPLE), *READ_MODEL, access=only("ledger:read")),
)
async def list_activity(question: Question, parameters: Annotated[ActivityParameters, Query()]) -> Response:
    """List the transfers recorded last, newest first."""
    return question.page(await queries.list_activity(question.view(), parameters.limit))


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def documented_events(item: Any, example: dict[str, Any]) -> dict[str, Any]:
    arguments = documented_page(item, example, *LOG, access=only("events:read"))
    lines = {"schema": {"type": "string", "description": "One event a line; position and next page are in the headers."}}
    arguments["responses"][200]["content"][JSON_LINES] = lines
    return arguments


@router.get("/events", tags=["log"], **documented_events(answers.EventItem, answers.EVENT_EXAMPLE))
async def list_events(question: Question, parameters: Annotated[EventParameters, Query()]) -> Response:
    """List events in the order of the log, after a position; JSON Lines if `Accept` is `application/x-ndjson`."""
    found = await events.list_events(question.view(), parameters, question.key(parameters))
    return question.page(found, parameters, as_lines=question.accepts_lines())


@router.get(
    "/events/stream",
    tags=["log"],
    response_class=EventSourceResponse,
    openapi_extra={"parameters": [LEDGER_HEADER, LAST_EVENT_ID], **only("events:read").documented()},
    responses={
        200: {"content": {EVENT_STREAM: {"example": PUSH_EXAMPLE}}},
        **problem_responses(*ANY_QUESTION, "too-many-streams"),
    },
)
async def stream_events(question: Question, parameters: Annotated[PushParameters, Query()]) -> Response:
    """Get events pushed as they are recorded (server-sent events), from a position on if one is given.

    `id` is the position; come back with it as `Last-Event-ID`. `data` is as in `GET /v1/events`.
    """
    return await push(question, question.state.tails, parameters)


@router.get("/streams/{stream}", tags=["log"], **documented_events(answers.StreamEventItem, answers.STREAM_EVENT_EXAMPLE))
async def list_stream(question: Question, stream: StreamId, parameters: Annotated[StreamParameters, Query()]) -> Response:
    """List the events of one stream, after a version; JSON Lines if `Accept` is `application/x-ndjson`."""
    found = await events.list_stream(question.view(), stream, parameters, question.key(parameters))
    return question.page(found, parameters, as_lines=question.accepts_lines())


@router.get(
    "/projections",
    tags=["log"],
    **documented(
        answers.Page[answers.ProgressItem],
        page_of(answers.PROGRESS_EXAMPLE),
        *ANY_QUESTION,
        access=PROGRESS,
        headers=[LEDGER_HEADER],
    ),
)
async def list_projections(question: Question) -> Response:
    """List the read models: how far each is, and why it is not further. `position` is the end of the log."""
    head, items = await progress.list_progress(question.state.reader, question.ledger_id())
    return question.page(AsOf(head, queries.Page(items, None)))


@router.get(
    "/projections/{name}",
    tags=["log"],
    **documented(answers.ProgressItem, answers.PROGRESS_EXAMPLE, *ANY_QUESTION, access=PROGRESS, headers=[LEDGER_HEADER]),
)
async def get_projection(question: Question, name: ProjectionName) -> Response:
    """Get one read model's progress."""
    head, items = await progress.list_progress(question.state.reader, question.ledger_id())
    return question.one(AsOf(head, next((item for item in items if item["name"] == name), None)))


# ── seals ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get(
    "/seals",
    tags=["proof"],
    **documented(
        answers.Page[answers.SealItem],
        page_of(answers.SEAL_EXAMPLE),
        *ANY_QUESTION,
        "cursor-invalid",
        access=only("ledger:read"),
        headers=[LEDGER_HEADER],
        answer_headers=PAGE_HEADERS,
    ),
)
async def list_seals(question: Question, parameters: Annotated[SealParameters, Query()]) -> Response:
    """List the signed roots of the log, newest first."""
    return question.page(await proofs.list_seals(question.view(), parameters, question.key(parameters)), parameters)


@router.get(
    "/seals/{position}/consistency",
    tags=["proof"],
    **documented(
        answers.ConsistencyAnswer,
        as_of(answers.CONSISTENCY_EXAMPLE),
        *ANY_QUESTION,
        access=only("ledger:read"),
        headers=[LEDGER_HEADER],
    ),
)
async def get_consistency(
    question: Question, position: SealPosition, parameters: Annotated[ConsistencyParameters, Query()]
) -> Response:
    """Get the proof that the seal at this position extends the one at `from`: nothing was changed, only added."""
    return question.one(await proofs.get_consistency(question.view(), position, parameters))


# ── audit ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get(
    "/refusals",
    tags=["audit"],
    **documented(
        answers.Page[answers.RefusalItem],
        page_of(answers.REFUSAL_EXAMPLE),
        *ANY_QUESTION,
        "cursor-invalid",
        access=only("events:read", "ops:admin"),
        headers=[LEDGER_HEADER],
        answer_headers=PAGE_HEADERS,
    ),
)
async def list_refusals(question: Question, parameters: Annotated[RefusalParameters, Query()]) -> Response:
    """List attempts that were refused, newest first: on this ledger, and those of nobody known.

    Attempts that are alike are one item for each second. Kept for a time and up to a number (`DAYBOOK_REFUSALS_DAYS`, `_MAX`).
    """
    return question.page(await audit.list_refusals(question.view(), parameters, question.key(parameters)), parameters)


PATHS: Final = [route.path for route in router.routes if isinstance(route, QueryRoute)]

# ── the app ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class State(TypedDict):
    """What lives as long as the app and reaches a request as `request.state`."""

    settings: Settings
    gate: Gate
    refusals: Refusals
    requests: Requests
    reader: Reader
    tails: Tails
    cursors: Cursors
    person_keys: PersonKeys


def checks(request: Request) -> dict[str, Check]:
    reader: Reader = request.state.reader
    return {
        "postgres": partial(ask_postgres, reader.postgres),
        "mongo": partial(reader.mongo.command, "ping"),
        "redis": partial(ask_redis, reader.redis),
    }


async def notes(request: Request) -> dict[str, Any]:
    """When the log was last sealed, and how the read models are. It is never sealed where no worker has a key."""
    reader: Reader = request.state.reader
    async with reader.postgres.connect() as connection:
        sealed_at = await last_sealed_at(connection)
    never = "never: no worker has a DAYBOOK_SEAL_KEY, or nothing is recorded"
    return {"sealed_at": timestamp(sealed_at) if sealed_at else never, "read_models": await _health(reader)}


async def _health(reader: Reader) -> str:
    """Of all ledgers, as the workers tell it."""
    report = await read_report(reader.redis)
    if report is None:
        return "unknown: no worker tells of them"
    if report.failed or report.degraded:
        return f"degraded: {len(report.failed)} have stopped, {len(report.degraded)} have put events aside"
    return "ok"


async def lag_of(request: Request, ledger_id: str) -> list[Metric]:
    """How far the ledger's read models are behind its log."""
    head, items = await progress.list_progress(request.state.reader, ledger_id)
    labels = ["ledger", "projection"]
    position = GaugeMetricFamily("daybook_log_position", "The last position of the log.", labels=["ledger"])
    position.add_metric([ledger_id], head)
    events = GaugeMetricFamily("daybook_projection_lag_events", "Events that a read model does not hold yet.", labels=labels)
    seconds = GaugeMetricFamily("daybook_projection_lag_seconds", "Age of the oldest of them.", labels=labels)
    failed = GaugeMetricFamily("daybook_projection_failed", "Whether a read model has stopped.", labels=labels)
    help_ = "Events that could not be applied to a read model."
    letters = GaugeMetricFamily("daybook_projection_dead_letters", help_, labels=labels)
    help_ = "Streams of which a read model takes nothing more in, because of dead letters."
    parked = GaugeMetricFamily("daybook_projection_parked_streams", help_, labels=labels)
    for item in items:
        about = [ledger_id, item["name"]]
        letters.add_metric(about, item["dead_letters"])
        parked.add_metric(about, item["parked_streams"])
        failed.add_metric(about, float(item["state"] == "failed"))
        if item["lag_events"] is not None:
            events.add_metric(about, item["lag_events"])
            seconds.add_metric(about, item["lag_seconds"])
    return [position, events, seconds, failed, letters, parked]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The query API; its settings come from the environment unless they are given."""
    configured = settings or settings_or_exit()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with (
            open_postgres(configured, "daybook_query") as postgres,
            open_mongo(configured, configured.mongo_timeout_ms) as mongo,
            open_redis(configured) as redis,
        ):
            await require_schema(postgres, configured.schema_wait_seconds)
            await require_lasting_redis(redis)
            await require_safe(configured, "daybook_query", say)
            gate = Gate(postgres, redis, configured)
            refusals = Refusals(redis, configured, "queries", PATHS)
            tails = Tails(postgres, redis, configured.event_streams_max)
            reader = Reader(postgres, mongo, redis, configured)
            calm_collector()
            sys.setswitchinterval(SWITCH_SECONDS)
            yield State(
                settings=configured,
                gate=gate,
                refusals=refusals,
                requests=Requests(),
                reader=reader,
                tails=tails,
                cursors=Cursors(configured.secret.get_secret_value()),
                person_keys=PersonKeys(configured),
            )
            await reader.moves.close()
            await tails.close()
            await gate.close()
            await refusals.close()

    app = QueryApp(
        title="Daybook queries",
        version=version("daybook"),
        summary="Answers what is known about users, accounts and the movement of money.",
        description=DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_questions(router, configured.cors_origins)
    app.include_router(health_router(checks, notes))
    app.include_router(metrics_router(lag_of))
    prepare(app, configured.log_level)
    return app


DESCRIPTION: Final = """\
Every answer says in `Daybook-Position` up to which position of the ledger's log it holds everything. To read what you have
written, send the `Daybook-Position` of the command as `Daybook-Min-Position`: the answer waits for it.

Lists have pages: `next` is the cursor of the next one. A read model that is not there answers 503 `rebuilding`, never a zero.
Errors are `application/problem+json` with a stable `code`.
"""
