"""Defines a projection: the read model that it makes, the events that it handles, and the function that it applies to them.

The function is pure: it uses no clock and no I/O, and does not read the read model. It gets the events in order and says what
each of them changes. The result must depend on the events alone, because a rebuilt read model must be equal byte for byte. An
event contains the balances after it; counts are given as differences. If you change the function, raise the `version` of its
read model.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from projector.projections.changes import DocumentChanges, KeyChanges
from shared.log.events import RecordedEvent
from shared.read_models.shapes import ReadModel

C = TypeVar("C", DocumentChanges, KeyChanges)


class Projection(msgspec.Struct, Generic[C], frozen=True):
    """The definition of one projection.

    `write_once` says that no document changes after it was inserted, so that documents can be verified a few at a time.

    `large_batches` says that a rebuild should write large batches, because documents that change often are written less often
    then. It is False where a change costs so much that a large batch would pass the time limit of the store.

    `makes` maps each event type to the number of documents or keys that such an event inserts, or to a function that counts them
    for an event. `origin` returns where to find the events of a document or key: the id of a stream, or one position, or None if
    it depends on the whole log. Both are left out if a part depends on the whole log.
    """

    model: ReadModel
    new_changes: type[C]
    handles: frozenset[type]
    project: Callable[[C, RecordedEvent, Any], None]
    write_once: bool = False
    large_batches: bool = True
    makes: Mapping[Any, int | Callable[[Any], int]] = {}
    origin: Callable[[str], str | int | None] | None = None

    @property
    def name(self) -> str:
        return self.model.name

    def fold(self, changes: C, recorded_events: Iterable[RecordedEvent]) -> None:
        """Adds to `changes` what the events change. Ignores events that the projection does not handle."""
        for recorded in recorded_events:
            if type(recorded.event) in self.handles:
                self.project(changes, recorded, recorded.event)
