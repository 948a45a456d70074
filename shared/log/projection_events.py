"""Events about read models. Class names and field names are the storage format: never rename one."""

from shared.log.event_struct import EventStruct
from shared.log.streams import projection_stream


class ProjectionEventSkipped(EventStruct, frozen=True):
    """An operator decided that a read model skips the event at `position` permanently, in every generation.

    The read model could not apply that event. The metadata of this event name the operator.
    """

    projection: str
    position: int
    reason: str

    def streams(self) -> tuple[str, ...]:
        return (projection_stream(self.projection),)


ProjectionEvent = ProjectionEventSkipped
