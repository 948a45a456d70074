"""The benchmarks run, and their report keeps the text around it. These tests do not look at the figures."""

import asyncio
import re
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import orjson
import pytest

from bench.__main__ import measure_each
from bench.benchmarks.cost import FollowedEvents
from bench.load_client import percentile
from bench.measurement import Figure, Section, Target, judge
from bench.plots import bars, lines
from bench.report import BEGIN, END, between_markers
from bench.workloads import HOT_ACCOUNT, Workload, account_id
from shared.errors import StackError
from shared.read_models.shapes import READ_MODELS

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench", *arguments]


@pytest.mark.slow
@pytest.mark.services
def test_a_benchmark_measures_each_of_its_lanes() -> None:
    done = subprocess.run(bench("single", "--quick"), capture_output=True, text=True, check=True, cwd=ROOT, timeout=300)
    rows = [line for line in done.stdout.splitlines() if re.match(r"\| (transfers|echo|bare).*connection \| [\d,]+ \|", line)]
    assert len(rows) == 4
    assert "fdatasync" not in done.stdout
    assert "round 1 of 1" in done.stderr


@pytest.mark.slow
@pytest.mark.services
async def test_ctrl_c_leaves_nothing_behind() -> None:
    process = await asyncio.create_subprocess_exec(*bench("single", "--quick"), stderr=asyncio.subprocess.PIPE, cwd=ROOT)
    assert process.stderr
    await process.stderr.readuntil(b"opening")
    assert _folders_of(process)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(120):
        await process.stderr.read()
        assert await process.wait() == 130
    assert _folders_of(process) == []


def _folders_of(process: Process) -> Sequence[Path]:
    return list(Path("/var/tmp").glob(f"daybook-bench-{process.pid}-*"))


async def test_a_benchmark_that_fails_takes_nothing_from_the_others() -> None:
    error = StackError("no room")

    async def fails() -> Section:
        raise error

    async def succeeds() -> Section:
        return Section("second", "Second")

    sections, failed = await measure_each({"first": fails, "second": succeeds})
    assert [section.name for section in sections] == ["second"]
    assert failed == {"first": error}


@pytest.mark.slow
def test_an_unknown_benchmark_is_named() -> None:
    done = subprocess.run(bench("swimming"), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "swimming" in done.stderr


def test_an_event_is_readable_when_the_slowest_read_model_has_it() -> None:
    events = FollowedEvents()
    for position, recorded_at in ((5, 100.0), (9, 101.0)):
        events.follow(position, recorded_at)
    slowest, *others = (model.name for model in READ_MODELS)
    events.hear(dict.fromkeys(others, 9), now=102.0)
    assert events.took == []
    events.hear({slowest: 7}, now=103.0)
    assert events.took == [3.0]
    events.hear({slowest: 9}, now=104.0)
    assert events.took == [3.0, 3.0]


def test_the_text_around_the_tables_stays() -> None:
    page = f"# Benchmarks\n\nours\n\n{BEGIN}\nold\n{END}\n\n## Berka\n"
    once = between_markers(page, "new")
    assert once == f"# Benchmarks\n\nours\n\n{BEGIN}\n\nnew\n\n{END}\n\n## Berka\n"
    assert between_markers(once, "new") == once
    with pytest.raises(ValueError, match="bench:begin"):
        between_markers("no markers", "new")


def test_a_target_is_judged_by_the_ratio_of_each_round() -> None:
    section = Section("pets", "Pets")
    for cats, dogs in ((10, 100), (30, 100), (20, 100)):
        section.measurement("cats").add({"per second": cats})
        section.measurement("dogs").add({"per second": dogs})
    reached = Target("cats", "pets", Figure("cats"), "≥", 0.2, Figure("dogs"))
    missed = Target("cats", "pets", Figure("cats"), "≥", 0.3, Figure("dogs"))
    unknown = Target("cows", "pets", Figure("cows"), "≥", 1)
    assert [judge(target, [section]).reached for target in (reached, missed, unknown)] == [True, False, None]
    assert judge(reached, [section]).measured == "20 (10–30)"


@pytest.mark.parametrize("picker", ["uniform", "zipf", "hot"])
def test_no_transfer_has_two_equal_accounts_or_a_key_twice(picker: str) -> None:
    requests = list(islice(Workload("POST", "/v1/transfers", 5, picker).requests(), 3_000))  # type: ignore[arg-type]
    bodies = [orjson.loads(request.partition(b"\r\n\r\n")[2]) for request in requests]
    assert all(body["from_account_id"] != body["to_account_id"] for body in bodies)
    assert len({re.search(rb"Idempotency-Key: (\S+)", request)[1] for request in requests}) == 3_000  # type: ignore[index]
    if picker == "hot":
        assert all(account_id(HOT_ACCOUNT) in body.values() for body in bodies)


def test_a_batch_holds_as_many_transfers_as_it_says() -> None:
    request = next(Workload("POST", "/v1/transfers/batch", 5, batch=7).requests())
    assert len(orjson.loads(request.partition(b"\r\n\r\n")[2])["transfers"]) == 7


def test_a_percentile_is_a_sample() -> None:
    samples = [float(n) for n in range(1, 101)]
    assert [percentile(samples, percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]


def test_plots_escape_what_they_show() -> None:
    section = Section("x", "X")
    section.measurement("a < b").add({"per second": 1})
    assert "a &lt; b" in bars("1 & 2", section.measurements.values(), "per second")
    assert "1 &amp; 2" in lines("1 & 2", [(0, 1), (1, 2)], "s", "ms")
