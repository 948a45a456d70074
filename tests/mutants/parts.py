"""What `make mutants` changes, part by part, and the tests that must notice it: the fastest that cover the part."""

from typing import Final

import msgspec

PURE: Final = ("-m", "not services and not slow")
FAST: Final = ("-m", "not slow")
ONE_SIMULATION: Final = "tests/simulation/test_simulation.py::test_random_histories_lose_double_and_skip_nothing[1]"
"""250 histories, of which 63 have a handover and 16 have workers."""


class Part(msgspec.Struct, frozen=True):
    """Modules, and what pytest is told in order to select their tests.

    `sample` is how many mutants are tried: as many as fit into an hour on two cores, and all of them if that is at least as many
    as there are. Tests with servers take some seconds for each mutant.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    sample: int


def _of_command_api(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/command_api/test_{name}.py" for name in names)


PARTS: Final = {
    "domain": Part(
        ("command_api/domain/*.py",),
        (
            *PURE,
            *_of_command_api("batch", "deciders", "exchanges", "holds", "past_decisions", "postings", "requests", "reversals"),
            *_of_command_api("schedules", "spending_limits", "rules_in_detail"),
            "tests/shared/test_schedule_rules.py",
        ),
        5_000,
    ),
    "writer": Part(
        ("command_api/writer/*.py",),
        (
            *FAST,
            *_of_command_api("append_statement", "batch", "command_queue", "deciders", "dry_runs", "half_batches"),
            *_of_command_api("handover", "kept_connection", "writer_faults", "writer_in_detail", "transfer_batch", "deadlines"),
            "tests/command_api/test_command_api.py::test_a_snapshot_of_another_fold_version_is_folded_again_from_the_events",
            "tests/shared/test_privacy.py::test_a_snapshot_of_an_earlier_fold_is_folded_anew_from_sealed_events",
            ONE_SIMULATION,
        ),
        400,
    ),
    "events": Part(
        ("shared/log/*.py",),
        (
            *FAST,
            *_of_command_api("append_statement", "batch", "deciders", "holds", "schedules", "exchanges", "postings"),
            *("tests/shared/test_events.py", "tests/shared/test_privacy.py"),
            *("tests/projector/test_verify.py", "tests/projector/test_tampering.py"),
            *("tests/cli/test_export_and_import.py", "tests/cli/test_ledgers.py", "tests/query_api/test_days.py"),
            ONE_SIMULATION,
        ),
        400,
    ),
    "runner": Part(
        (
            *("projector/runner.py", "projector/followed_ledger.py", "projector/follower.py", "projector/feed.py"),
            *("projector/reading_pace.py", "projector/examiner.py", "projector/live_workers.py"),
        ),
        (
            *FAST,
            *("tests/projector/test_reading_pace.py", "tests/projector/test_projector.py", "tests/projector/test_batch_size.py"),
            *("tests/projector/test_several_workers.py", "tests/projector/test_many_ledgers.py"),
            ONE_SIMULATION,
        ),
        300,
    ),
    "sinks": Part(
        # Those of the stores that every installation has.
        ("projector/sinks/mongo*.py", "projector/sinks/redis.py", "projector/sinks/content_digest.py"),
        (
            *FAST,
            *("tests/projector/test_sinks_conform.py", "tests/projector/test_shared_transactions.py"),
            *("tests/projector/test_projector.py", "tests/projector/test_dead_letters.py"),
            *("tests/cli/test_projections_command.py", "tests/query_api/test_tenants.py"),
        ),
        300,
    ),
}
