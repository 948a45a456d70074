"""Tests which commands go into the next batch, and when. No server, no event loop: the test turns the clock."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from command_api.writer.queue import ACTIVE_SECONDS, SHARED_COMMANDS, SHARED_TURNS, CommandQueue
from shared.errors import Overloaded

DEADLINE_SECONDS = 2.5


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Command:
    number: int
    expires_at: float
    caller: str = "ada"
    answered: bool = False

    def is_answered(self) -> bool:
        return self.answered


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> CommandQueue[Command]:
    return CommandQueue(queue_commands_max=100, batch_commands_max=10, clock=clock)


def arrive(queue: CommandQueue[Command], clock: Clock, count: int, caller: str = "ada") -> list[Command]:
    commands = [Command(number, clock.now + DEADLINE_SECONDS, caller) for number in range(count)]
    queue.add(commands)
    return commands


def test_the_oldest_command_goes_first(queue: CommandQueue[Command], clock: Clock) -> None:
    arrive(queue, clock, 6)
    assert [command.number for command in queue.take(writing=0)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("waiting", "writing", "taken"), [(1, 0, 1), (2, 0, 1), (8, 8, 8), (5, 1, 3), (1, 9, 1), (3, 4, 3), (7, 0, 4)]
)
def test_a_batch_takes_half_of_the_commands_without_an_answer(
    queue: CommandQueue[Command], clock: Clock, waiting: int, writing: int, taken: int
) -> None:
    arrive(queue, clock, waiting)
    assert len(queue.take(writing)) == taken
    assert len(queue) == waiting - taken


def test_a_batch_is_never_larger_than_a_transaction_may_be(queue: CommandQueue[Command], clock: Clock) -> None:
    arrive(queue, clock, 90)
    assert len(queue.take(writing=10)) == 10


def test_nothing_is_taken_from_an_empty_queue(queue: CommandQueue[Command]) -> None:
    assert queue.take(writing=7) == []


@pytest.mark.parametrize(
    ("waiting", "writing", "enough"), [(0, 0, True), (3, 4, False), (4, 4, True), (9, 50, False), (10, 50, True)]
)
def test_the_next_batch_begins_when_as_many_wait_as_are_written_or_a_full_batch(
    queue: CommandQueue[Command], clock: Clock, waiting: int, writing: int, *, enough: bool
) -> None:
    if waiting:
        arrive(queue, clock, waiting)
    assert queue.has_enough(writing) is enough


def test_a_command_whose_deadline_has_passed_is_never_taken(queue: CommandQueue[Command], clock: Clock) -> None:
    arrive(queue, clock, 3)
    clock.now += DEADLINE_SECONDS
    late = arrive(queue, clock, 2)
    assert queue.take(writing=0) == late[:2]


def test_a_command_is_taken_until_its_deadline(queue: CommandQueue[Command], clock: Clock) -> None:
    [command] = arrive(queue, clock, 1)
    clock.now += DEADLINE_SECONDS - 0.001
    assert queue.take(writing=0) == [command]


def test_a_command_whose_caller_has_gone_leaves_its_place_to_the_next(queue: CommandQueue[Command], clock: Clock) -> None:
    commands = arrive(queue, clock, 3)
    commands[0].answered = True
    assert queue.take(writing=0) == commands[1:3]


def test_commands_that_come_together_are_taken_up_together_or_not_at_all(queue: CommandQueue[Command], clock: Clock) -> None:
    arrive(queue, clock, 85)
    arrive(queue, clock, 5, "grace")
    with pytest.raises(Overloaded):
        arrive(queue, clock, 11, "grace")
    assert len(queue) == 90
    arrive(queue, clock, 10, "grace")
    assert len(queue) == 100


# ── several callers ──────────────────────────────────────────────────────────────────────────────────────────────────


def names(batch: list[Command]) -> list[str]:
    return [f"{command.caller}{command.number}" for command in batch]


def test_callers_take_turns_and_each_keeps_its_order(clock: Clock) -> None:
    queue: CommandQueue[Command] = CommandQueue(queue_commands_max=100, batch_commands_max=160, clock=clock)
    for caller in ("a", "b", "c"):
        arrive(queue, clock, 3 if caller == "a" else 1, caller)
    assert names(queue.take(writing=5)) == ["a0", "b0", "c0", "a1"]


def test_the_next_batch_goes_on_with_the_caller_who_comes_next(queue: CommandQueue[Command], clock: Clock) -> None:
    for caller in ("a", "b", "c"):
        arrive(queue, clock, 2, caller)
    assert names(queue.take(writing=0)) == ["a0", "b0", "c0"]
    arrive(queue, clock, 1, "d")
    assert names(queue.take(writing=8)) == ["a1", "b1", "c1", "d0"]


def test_one_caller_cannot_fill_the_queue(queue: CommandQueue[Command], clock: Clock) -> None:
    """Otherwise every other caller would get a 503."""
    arrive(queue, clock, 90)
    with pytest.raises(Overloaded):
        arrive(queue, clock, 1)
    arrive(queue, clock, 10, "grace")


def test_a_caller_who_is_alone_may_fill_a_batch_and_one_who_is_not_may_not(clock: Clock) -> None:
    queue: CommandQueue[Command] = CommandQueue(queue_commands_max=10_000, batch_commands_max=160, clock=clock)
    arrive(queue, clock, 1_000)
    assert len(queue.take(writing=0)) == 160
    arrive(queue, clock, 1, "grace")
    assert len(queue.take(writing=160)) == SHARED_COMMANDS
    clock.now += ACTIVE_SECONDS / 2
    assert len(queue.take(writing=10)) == 0, "the deadline has passed"
    arrive(queue, clock, 1_000)
    assert len(queue.take(writing=10)) == SHARED_COMMANDS, "the other caller may come back"
    clock.now += ACTIVE_SECONDS
    arrive(queue, clock, 1_000)
    assert len(queue.take(writing=10)) == 160


def test_a_crowd_of_callers_fills_a_batch(clock: Clock) -> None:
    queue: CommandQueue[Command] = CommandQueue(queue_commands_max=10_000, batch_commands_max=160, clock=clock)
    for number in range(500):
        arrive(queue, clock, 1, f"caller {number}")
    assert len({command.caller for command in queue.take(writing=0)}) == 160


def test_single_commands_of_two_callers_share_large_batches(clock: Clock) -> None:
    """Only requests with many commands make batches small: two services with 32 connections each keep their speed."""
    queue: CommandQueue[Command] = CommandQueue(queue_commands_max=10_000, batch_commands_max=160, clock=clock)
    for number in range(64):
        arrive(queue, clock, 1, ("ada", "grace")[number % 2])
    assert len(queue.take(writing=0)) == 32


def test_a_request_counts_until_its_last_command_is_taken(clock: Clock) -> None:
    queue: CommandQueue[Command] = CommandQueue(queue_commands_max=10_000, batch_commands_max=160, clock=clock)
    arrive(queue, clock, 1, "grace")
    for _ in range(10):
        arrive(queue, clock, 6)
    sizes = [len(queue.take(writing=100)) for _ in range(9)]
    assert sizes == [11, 9, 7, 6, 5, *[SHARED_COMMANDS] * 4]


def test_batches_grow_with_a_backlog_that_small_ones_would_not_finish_in_time(clock: Clock) -> None:
    queue: CommandQueue[Command] = CommandQueue(queue_commands_max=10_000, batch_commands_max=160, clock=clock)
    arrive(queue, clock, 1, "grace")
    arrive(queue, clock, 8_000)
    assert len(queue.take(writing=100)) == 8_001 // SHARED_TURNS


HEAVY_CONNECTIONS = 4
HEAVY_COMMANDS = 500
BATCH_SECONDS = 0.004
"""What a transaction takes, whatever is in it."""
COMMAND_SECONDS = 0.0001
"""What each of its commands adds. Both are about what `python -m bench single fairness` measures."""


def waits_of_a_bystander(connections: int, times: int = 200) -> Iterator[float]:
    """How long each command of a bystander waits, in seconds, beside a customer who sends batches as fast as it can.

    A batch is taken while the one before it is written, as in `LedgerWriter`. Each caller sends again when it is answered.
    """
    clock = Clock()
    queue: CommandQueue[Command] = CommandQueue(queue_commands_max=10_000, batch_commands_max=500, clock=clock)
    unanswered = [arrive(queue, clock, HEAVY_COMMANDS, "heavy") for _ in range(connections)]
    before: list[Command] = []
    since, mine = clock.now, arrive(queue, clock, 1, "bystander")
    while times:
        batch = queue.take(len(before))
        if before:
            clock.now += BATCH_SECONDS + COMMAND_SECONDS * len(before)
        for command in before:
            command.answered = True
        for number, commands in enumerate(unanswered):
            if all(command.answered for command in commands):
                unanswered[number] = arrive(queue, clock, HEAVY_COMMANDS, "heavy")
        if mine[0].answered:
            yield clock.now - since
            since, mine, times = clock.now, arrive(queue, clock, 1, "bystander"), times - 1
        before = batch


def test_the_p99_of_a_bystander_stays_below_three_times_its_quiet_value() -> None:
    """In one line for all callers it was far more, and so it was with turns and large batches."""
    [quiet, *_] = waits_of_a_bystander(connections=0)
    loaded = sorted(waits_of_a_bystander(HEAVY_CONNECTIONS))
    assert loaded[len(loaded) * 99 // 100] < 3 * quiet
