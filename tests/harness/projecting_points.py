"""The points in the code that projects events, sorted by what a worker must be doing to reach them.

A point is `function:number`, as `tests.harness.await_points` names it. To see all points with their source lines, run
`python -m tests.harness.projecting_points`.
"""

import inspect
from pathlib import Path
from typing import Final

from tests.harness.await_points import Point, lines_of, parse_point, points_of
from tests.harness.mortal_workers import PATH

PARKING: Final = frozenset(
    {
        *("GenerationBuild.advance:1", "GenerationBuild.advance:2", "GenerationBuild.advance:4"),
        *("GenerationBuild._write:1", "GenerationBuild._write_dead_letter:1"),
        *("MongoSink.read_letters:1", "MongoSink.read_parked:1"),
        *("RedisSink.require_fits:1", "RedisSink.read_letters:1", "RedisSink.read_parked:1"),
        *("Follower._run:4", "Follower._run:5"),
    }
)
"""The points that only a worker with dead letters reaches."""

FOREIGN_FUNCTIONS: Final = frozenset(
    {
        # Called by `verify`, by queries and by rebuilds that a person starts.
        *("MongoSink.content", "MongoSink.read_position", "Generations.open_new"),
        *("RedisSink.content", "RedisSink.read_keys", "RedisSink.key_names"),
        # Called by an operator: see tests/cli/test_projections_command.py.
        *("Generations.roll_back", "Generations.drop_kept"),
        *("MongoSink.reopen", "MongoSink.pause", "MongoSink.resume", "MongoSink._set_paused"),
        *("MongoSink.copy_labels", "MongoSink.delete_pointer", "MongoSink.note"),
        *("RedisSink.pause", "RedisSink.resume", "RedisSink.copy_labels", "RedisSink.delete_pointer", "RedisSink.note"),
        # They only read for the comparison before a switch. Points in their caller, `Generations.finish`, cover a death there.
        *("Feed.events_at", "Feed.read_streams", "Feed.count_types", "Feed.events_of_type"),
        *("MongoSink.count", "MongoSink.sample", "MongoSink.pick", "RedisSink.count", "RedisSink.sample", "RedisSink.pick"),
        # Called when a projection fails.
        *("Failures.note", "Generations._give_up"),
    }
)
"""The functions that a healthy worker never calls while it follows the log."""

FOREIGN_POINTS: Final = frozenset(
    {
        # An operator has paused the read model.
        "Follower._run:3",
        # An operator asked for a further check, or what was built is wrong.
        *("Generations._compare:2", "Generations._compare:3"),
        # The head moved between two reads.
        "Feed._read:5",
        # Another worker's transaction blocks this one. Two separate tests cover that.
        *("MongoTransactions._end_abandoned_transactions:1", "MongoTransactions._end_abandoned_transactions:2"),
        *("MongoTransactions.wait_for:2", "MongoSink._apply_alone:3", "MongoTransactions.after_lost_step:1"),
        # These statements await something that is always ready.
        *("RedisSink.read_checkpoint:1", "RedisSink._call:1", "RedisSink._read_sums:1"),
        *("RedisSink.read_live:1", "RedisSink.read_live:3", "RedisSink.read_live:4", "Failures.read_stored:2"),
        *("Runner._listen:1", "Runner.run:2", "wait:1"),
        *("FollowedLedger._start:1", "FollowedLedger._start:2"),
        *("Feed.close:1", "Feed._read_kept:1"),
        # A worker was told to end.
        *("Runner.run:3", "Runner.run:4", "Runner.run:5", "Runner.run:6", "Runner.run:7", "Feed.close:2"),
        *("FollowedLedger.close:1", "FollowedLedger.close:2", "FollowedLedger.close:3"),
        *("FollowedLedger.end:1", "FollowedLedger.end:2", "LiveWorkers.leave:1", "Follower.run:2"),
        # An operator has skipped an event.
        "Examiner._read_logs:3",
        # A store does not answer.
        "Runner._examine:3",
        # Redis does not know a script, which happens only before the first batch.
        "RedisSink._apply_together:2",
        # Redis is unreachable.
        "Runner._listen:4",
        # One read model is thousands of events behind another.
        "Feed.next_events:1",
    }
)
"""The points that a healthy worker does not reach while it follows the log, although it calls their functions."""

END_ABANDONED: Final = parse_point("MongoTransactions._end_abandoned_transactions:2")
"""The point at which a worker asks MongoDB to end the transaction of another worker."""


def following_points() -> set[Point]:
    """Returns all points that a healthy worker reaches while it follows the log."""
    return {
        point
        for point in points_of(PATH)
        if point.function not in FOREIGN_FUNCTIONS and str(point) not in FOREIGN_POINTS | PARKING
    }


def parking_points() -> set[Point]:
    return {point for point in points_of(PATH) if str(point) in PARKING}


def main() -> None:
    """Prints all points, each with its line of source code."""
    sources = {module.__file__ or "": Path(inspect.getsourcefile(module) or "").read_text().splitlines() for module in PATH}
    for (path, line), point in sorted(lines_of(PATH).items()):
        print(f"{point!s:45} {sources[path][line - 1].strip()}")  # noqa: T201 # read by a developer who adds a new point to one of the lists


if __name__ == "__main__":
    main()
