"""Read models, as far as operators decide something about them. No route leads here: `daybook dead-letters` does."""

from typing import Annotated, Final

import msgspec
from pydantic import Field

from command_api.command import Command, Reference, States
from command_api.fold import Fold
from shared.events import Event, ProjectionEventSkipped, projection_stream

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class ProjectionState(msgspec.Struct, frozen=True):
    """Positions of the events that are left out, in the order of the decisions."""

    skipped: tuple[int, ...] = ()


def evolve_projection(state: ProjectionState, event: ProjectionEventSkipped) -> ProjectionState:
    return ProjectionState((*state.skipped, event.position))


PROJECTION: Final = Fold(1, ProjectionState(), evolve_projection)

# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class SkipProjectionEvent(Command):
    """Leaves an event out of a read model for good. Whether it was put aside there, only the read model knows: ask it first."""

    projection: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
    position: Annotated[int, Field(ge=1)]
    reason: Reference

    def streams(self) -> tuple[str, ...]:
        return (projection_stream(self.projection),)

    def decide(self, states: States) -> list[Event]:
        state: ProjectionState = states[projection_stream(self.projection)]
        if self.position in state.skipped:
            return []
        return [ProjectionEventSkipped(projection=self.projection, position=self.position, reason=self.reason)]
