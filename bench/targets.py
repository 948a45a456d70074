"""Lists the performance targets, each for a figure of one run."""

from typing import Final

from bench.benchmarks import commands, cost, fairness, growth, pipeline, projecting, queries, stores, writers
from bench.measurement import Figure, Target

_UNIFORM: Final = Figure(commands.UNIFORM)
_DEADLINE_MS: Final = 2_500
"""The default deadline of a command, in milliseconds."""

_HELD: Final = 0.99
"""The share of sent requests that must be answered. This is below 1, because the last answers arrive after the end of a load."""

TARGETS: Final = (
    Target("transfers, uniform", "commands", _UNIFORM, "≥", 0.75, Figure(commands.ECHO)),
    Target("transfers, uniform", "commands", _UNIFORM, "≥", 10, Figure(commands.CRUD)),
    Target(
        "p99 of transfers, uniform",
        "commands",
        Figure(commands.UNIFORM, "p99 ms"),
        "≤",
        2,
        Figure(commands.ECHO, "p99 ms"),
    ),
    Target("transfers, one hot account", "commands", Figure(commands.HOT), "≥", 0.9, _UNIFORM),
    Target("transfers, a crowd of callers", "commands", Figure(commands.CROWD), "≥", 0.9, _UNIFORM),
    Target("p99 of transfers, a crowd of callers", "commands", Figure(commands.CROWD, "p99 ms"), "≤", _DEADLINE_MS),
    Target("transfers in batches of 500", "commands", Figure(commands.BATCH), "≥", 15_000),
    Target("transfers in batches of 500", "commands stores", Figure(commands.BATCH), "≥", 0.25, Figure(stores.UNNEST)),
    Target("transfers, one at a time", "single", Figure(commands.ALONE), "≥", 0.5, Figure(commands.INSERT)),
    Target(
        "p99 of a bystander beside full batches",
        "fairness",
        Figure(fairness.BESIDE, "p99 ms"),
        "≤",
        3,
        Figure(fairness.QUIET, "p99 ms"),
    ),
    *(
        target
        for count in writers.PROCESSES[1:]
        for target in (
            Target(
                f"transfers with {count} command processes",
                "writers",
                Figure(writers.lane_name(count)),
                "≥",
                0.95,
                Figure(writers.lane_name(1)),
            ),
            Target(
                f"p99 with {count} command processes",
                "writers",
                Figure(writers.lane_name(count), "p99 ms"),
                "≤",
                1.5,
                Figure(writers.lane_name(1), "p99 ms"),
            ),
        )
    ),
    Target("transfers beside a worker", "cost", Figure(cost.GATHERING), "≥", 1.5, Figure(cost.EAGER)),
    Target("processor time of a transfer", "cost", Figure(cost.GATHERING, "all µs"), "≤", 0.65, Figure(cost.EAGER, "all µs")),
    Target("event → readable at full load, p99", "cost", Figure(cost.GATHERING, "readable p99 ms"), "≤", 500),
    Target("GET of a balance", "queries", Figure(queries.BALANCE), "≥", 0.8, Figure(queries.ECHO)),
    Target("GET of an account", "queries", Figure(queries.ACCOUNT), "≥", 0.7, Figure(queries.ECHO)),
    Target("GET of a page of 20 entries", "queries", Figure(queries.PAGE), "≥", 0.4, Figure(queries.ECHO)),
    Target("projecting live", "commands projecting", Figure(projecting.LIVE), "≥", 2, _UNIFORM),
    Target(
        "replay, events",
        "replay",
        Figure(projecting.REPLAY_LARGE),
        "≥",
        0.6,
        Figure(stores.INSERT_MANY, "documents per second"),
    ),
    Target(
        "replay, documents",
        "replay",
        Figure(projecting.REPLAY_LARGE, "documents per second"),
        "≥",
        0.6,
        Figure(stores.INSERT_MANY, "documents per second"),
    ),
    Target(
        "memory of a replay, large log",
        "replay",
        Figure(projecting.REPLAY_LARGE, "peak MiB"),
        "≤",
        1.1,
        Figure(projecting.REPLAY_SMALL, "peak MiB"),
    ),
    Target("whole pipeline, rate held", "pipeline", Figure(pipeline.PIPELINE), "≥", _HELD * pipeline.RATE),
    Target("whole pipeline, lag p99", "pipeline", Figure(pipeline.LAG, "p99 ms"), "≤", 1_000),
    Target("whole pipeline, growth of lag", "pipeline", Figure(pipeline.LAG, "growth"), "≤", 1.1),
    Target("whole pipeline, growth of memory", "pipeline", Figure(pipeline.MEMORY, "growth"), "≤", 1.05),
    Target("command → visible, p50", "visible", Figure(pipeline.VISIBLE, "p50 ms"), "≤", 25),
    Target("command → visible, p99", "visible", Figure(pipeline.VISIBLE, "p99 ms"), "≤", 150),
    Target(
        "command p50, large log",
        "growth",
        Figure(growth.LARGE, "p50 ms"),
        "≤",
        1.1,
        Figure(growth.SMALL, "p50 ms"),
    ),
    Target(
        "bytes of an event, large log",
        "growth",
        Figure(growth.LARGE, "bytes per event"),
        "≤",
        1.1,
        Figure(growth.SMALL, "bytes per event"),
    ),
    Target(
        "page of an account with many entries",
        "queries",
        Figure(queries.PAGE_OF_MANY),
        "≥",
        0.9,
        Figure(queries.PAGE_OF_FEW),
    ),
)
