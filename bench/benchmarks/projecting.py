"""Measures how many events per second the read models take from the log, and how many a rebuild takes."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

from bench.benchmarks.stores import INSERT_MANY, insert_many
from bench.interleaving import Lane, Values, interleave
from bench.ledger_filling import append_uniform
from bench.measurement import Section
from bench.read_model_watch import LEDGER, ReadModelWatch, watch_read_models
from bench.rig import Rig, environment_of, running, say
from dev.child_processes import Child
from shared.errors import StackError
from shared.read_models.generations import live_generation
from shared.read_models.shapes import READ_MODELS
from shared.settings import Settings
from shared.stores.all_stores import open_stores

LIVE: Final = "projecting live, both stores"
REPLAY_SMALL: Final = "replay of both stores, small log"
REPLAY_LARGE: Final = "replay of both stores, large log"
LOOK_SECONDS: Final = 0.02


async def measure_projecting(rig: Rig) -> Section:
    section = Section("projecting", "Projecting live")
    scale = rig.scale
    settings = await rig.ledger(scale.accounts)
    async with watch_read_models(settings) as follow:
        say("projecting: building the read models for the first time")
        await catch_up(rig, settings, follow)

        async def lane() -> Values:
            await append_uniform(settings, scale.backlog_events, scale.accounts)
            return {"per second": await catch_up(rig, settings, follow)}

        await interleave(section, {LIVE: lane}, scale.rounds)
    section.notes.append(
        f"A worker that starts again finds {scale.backlog_events:,} transfers. The rate is in events per second, from when the "
        "first read model moves until the last one is at the end of the log. Each event goes to all read models."
    )
    return section


async def catch_up(rig: Rig, settings: Settings, follow: ReadModelWatch) -> float:
    """Starts a worker, and returns how many events per second it projects. The start of the worker is not measured."""
    async with running(rig.worker(settings)):
        return await follow.per_second()


async def measure_replay(rig: Rig) -> Section:
    section = Section("replay", "Replaying everything")
    small, large = rig.scale.replay_events
    settings = {REPLAY_SMALL: await _filled(rig, small), REPLAY_LARGE: await _filled(rig, large)}
    lanes: dict[str, Lane] = {
        INSERT_MANY: lambda: insert_many(rig.mongo.url, rig.scale.seconds),
        REPLAY_SMALL: lambda: _replay_all(rig, settings[REPLAY_SMALL]),
        REPLAY_LARGE: lambda: _replay_all(rig, settings[REPLAY_LARGE]),
    }
    await interleave(section, lanes, rig.scale.rounds)
    section.notes.append(
        f"`daybook replay` of all read models, with indexes and digests, over logs with {small:,} and {large:,} "
        f"transfers between {rig.scale.accounts:,} accounts. `per second` counts events; `documents per second` counts what "
        "it leaves in MongoDB. A transfer becomes three documents there, changes of two accounts, and changes in Redis. The "
        "yardstick is `insert_many` into one collection without indexes. Comparing events with documents compares one with three."
    )
    return section


async def _filled(rig: Rig, events: int) -> Settings:
    say(f"replay: appending {events:,} transfers")
    settings = await rig.ledger(rig.scale.accounts)
    await append_uniform(settings, events, rig.scale.accounts)
    return settings


async def _replay_all(rig: Rig, settings: Settings) -> Values:
    """Runs `daybook replay` of all read models. Returns its rates and its peak memory use."""
    progress, peak = await _replay(rig, settings)
    rate = progress["events_per_second"]
    return {"documents per second": rate * await _documents(settings) / progress["done"], "per second": rate, "peak MiB": peak}


async def replay_rate(rig: Rig, settings: Settings, name: str) -> Values:
    """Runs `daybook replay` of one read model. Returns its rate and its peak memory use."""
    progress, peak = await _replay(rig, settings, name)
    return {"per second": progress["events_per_second"], "peak MiB": peak}


async def _replay(rig: Rig, settings: Settings, *names: str) -> tuple[dict[str, Any], float]:
    """Runs `daybook replay`. Returns what it printed last of its progress, and its peak memory use in MiB."""
    log = rig.log_folder() / "replay.log"
    replay = Child("replay", log, [sys.executable, "-m", "cli.app", "replay", *names], environment=environment_of(settings))
    peak = 0.0
    try:
        await replay.start()
        while replay.running:
            peak = max(peak, _peak_mebibytes(replay.pid))
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await replay.stop()
    if replay.process and replay.process.returncode:
        msg = f"the replay failed: {replay.last_words()}"
        raise StackError(msg)
    return json.loads([line for line in log.read_text().splitlines() if line.startswith("{")][-1]), peak


async def _documents(settings: Settings) -> int:
    """Returns the number of documents of all read models in MongoDB."""
    async with open_stores(settings, "daybook_query") as stores:
        live = [
            await live_generation(stores.mongo, stores.redis, model, LEDGER) for model in READ_MODELS if model.store == "mongo"
        ]
        return sum([await generation.documents().count(stores.mongo) for generation in live])


def _peak_mebibytes(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    _, _, peak = status.partition("VmHWM:")
    return int(peak.split()[0]) / 1024 if peak else 0
