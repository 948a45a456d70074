"""The decider for an operator's decisions about a read model, such as a skip.

`daybook dead-letters` sends these commands, and so does `command_api.requested_skips`, after the worker has found the event among
the dead letters. The stream of a read model is `projection-<name>`.
"""

from typing import Annotated, ClassVar, Final

import msgspec
from pydantic import Field

from command_api.domain.command import Command, States
from shared.log.events import Event
from shared.log.projection_events import ProjectionEventSkipped
from shared.log.stream_fold import StreamFold
from shared.log.streams import projection_stream
from shared.text_types import Reference

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class ProjectionState(msgspec.Struct, frozen=True):
    """The positions of the events that a read model skips, in the order of the decisions to skip them."""

    skipped: tuple[int, ...] = ()


def evolve_projection(state: ProjectionState, event: ProjectionEventSkipped) -> ProjectionState:
    return ProjectionState((*state.skipped, event.position))


PROJECTION_FOLD: Final = StreamFold(1, ProjectionState(), evolve_projection)

# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


class SkipProjectionEvent(Command):
    """Leaves an event out of a read model permanently. The command is never rejected.

    The caller must check first that the event is a dead letter. The command does not check this, because dead letters are stored
    with the read model and not in the log.
    """

    suits_closed_ledgers: ClassVar[bool] = True

    projection: Annotated[str, Field(pattern=r"^[a-z_-]{1,40}$")]
    position: Annotated[int, Field(ge=1)]
    reason: Reference

    def streams(self) -> tuple[str, ...]:
        return (projection_stream(self.projection),)

    def decide(self, states: States) -> list[Event]:
        state: ProjectionState = states[projection_stream(self.projection)]
        if self.position in state.skipped:
            return []
        return [ProjectionEventSkipped(projection=self.projection, position=self.position, reason=self.reason)]
