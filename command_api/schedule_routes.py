"""The routes of schedules: transfers at a moment, or again and again by a rule."""

from fastapi import APIRouter, Response

from command_api.documentation import MONEY_PROBLEMS, documented
from command_api.domain.schedule import CancelSchedule, ChangeSchedule, CreateSchedule, NewSchedule, ScheduleChanges
from command_api.requests import CommandRoute, HttpRequest
from command_api.schedule_answers import ScheduleBody, schedule_body
from shared.identity.access import own_or
from shared.input_types import Id

schedule_router = APIRouter(prefix="/v1", route_class=CommandRoute)

_TIMING_PROBLEMS = ("same-account", "time-zone-unknown", "schedule-never-due")


@schedule_router.post(
    "/schedules",
    status_code=201,
    response_model=ScheduleBody,
    **documented(*MONEY_PROBLEMS, *_TIMING_PROBLEMS, access=own_or("transfers:write"), money=True),
)
async def create_schedule(body: NewSchedule, request: HttpRequest) -> Response:
    """Transfer money at a moment, or again and again by a rule.

    A run is a transfer that occurs when it is due. What is available is looked at then, and a run that a rule rejects is recorded
    as refused. Runs that were missed are caught up in order.
    """
    return await request.run(CreateSchedule(schedule=body), schedule_body, new="schedules", moves_money=True)


@schedule_router.patch(
    "/schedules/{schedule_id}",
    response_model=ScheduleBody,
    **documented(
        *(code for code in MONEY_PROBLEMS if code not in {"id-taken", "currency-unknown"}),
        *_TIMING_PROBLEMS,
        "schedule-not-active",
        "schedule-run-due",
        access=own_or("transfers:write"),
    ),
)
async def change_schedule(schedule_id: Id, body: ScheduleChanges, request: HttpRequest) -> Response:
    """Change the runs of a schedule that are not recorded yet: the amount, the payee, or when they are due.

    A member that is left out stays as it is. A repeated request changes nothing.
    """
    return await request.run(ChangeSchedule(schedule_id=schedule_id, changes=body), schedule_body)


@schedule_router.post(
    "/schedules/{schedule_id}/cancel",
    response_model=ScheduleBody,
    **documented("schedule-not-active", access=own_or("transfers:write")),
)
async def cancel_schedule(schedule_id: Id, request: HttpRequest) -> Response:
    """End a schedule. Runs that are not recorded yet are not made."""
    return await request.run(CancelSchedule(schedule_id=schedule_id), schedule_body)
