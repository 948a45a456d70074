"""How fast the read models follow the log, and how fast they are built anew."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Final

from bench.benchmarks.stores import INSERT_MANY, insert_many
from bench.filling import append_uniform
from bench.following import LEDGER, Following, following
from bench.measurement import Section
from bench.rig import Rig, environment_of, running, say
from bench.rounds import Lane, Values, interleave
from dev.children import Child
from shared.connections import open_stores
from shared.errors import StackError
from shared.read_models import READ_MODELS, live_generation
from shared.settings import Settings

LIVE: Final = "projecting live, both stores"
REPLAY_SMALL: Final = "replay of both stores, small log"
REPLAY_LARGE: Final = "replay of both stores, large log"
LOOK_SECONDS: Final = 0.02


async def measure_projecting(rig: Rig) -> Section:
    section = Section("projecting", "Projecting live")
    scale = rig.scale
    settings = await rig.ledger(scale.accounts)
    async with following(settings) as follow:
        say("projecting: building the read models for the first time")
        await _catch_up(rig, settings, follow)

        async def lane() -> Values:
            await append_uniform(settings, scale.backlog_events, scale.accounts)
            return {"per second": await _catch_up(rig, settings, follow)}

        await interleave(section, {LIVE: lane}, scale.rounds)
    section.notes.append(
        f"A worker that was away finds {scale.backlog_events:,} transfers. Events a second, from when its first read model moves "
        "to when the last one is at the end of the log; each event is posted to all seven read models."
    )
    return section


async def _catch_up(rig: Rig, settings: Settings, follow: Following) -> float:
    """Starts a worker; how many events it posts in a second. The time that it needs to start does not count."""
    async with running(rig.worker(settings)):
        looks = await follow.until(await follow.head())
    begin = [look for look in looks if look.most == looks[0].most][-1]
    return (looks[-1].least - begin.least) / max(looks[-1].at - begin.at, LOOK_SECONDS)


async def measure_replay(rig: Rig) -> Section:
    section = Section("replay", "Replaying everything")
    small, large = rig.scale.replay_events
    settings = {REPLAY_SMALL: await _filled(rig, small), REPLAY_LARGE: await _filled(rig, large)}
    lanes: dict[str, Lane] = {
        INSERT_MANY: lambda: insert_many(rig.mongo.url, rig.scale.seconds),
        REPLAY_SMALL: lambda: _replay(rig, settings[REPLAY_SMALL]),
        REPLAY_LARGE: lambda: _replay(rig, settings[REPLAY_LARGE]),
    }
    await interleave(section, lanes, rig.scale.rounds)
    section.notes.append(
        f"`daybook replay` of all seven read models, with indexes and digests, over logs with {small:,} and {large:,} "
        f"transfers between {rig.scale.accounts:,} accounts. «per second»: events. «documents per second»: "
        "what it leaves in MongoDB. A transfer becomes three documents there, and changes of two accounts and of Redis; "
        "`insert_many` into one collection without indexes is the yardstick. Events beside documents compare one with three."
    )
    return section


async def _filled(rig: Rig, events: int) -> Settings:
    say(f"replay: appending {events:,} transfers")
    settings = await rig.ledger(rig.scale.accounts)
    await append_uniform(settings, events, rig.scale.accounts)
    return settings


async def _replay(rig: Rig, settings: Settings) -> Values:
    """Events a second, and the most memory that it held at once."""
    log = rig.log_folder() / "replay.log"
    replay = Child("replay", log, [sys.executable, "-m", "cli.app", "replay"], environment=environment_of(settings))
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
    progress = json.loads([line for line in log.read_text().splitlines() if line.startswith("{")][-1])
    rate = progress["events_per_second"]
    return {"documents per second": rate * await _documents(settings) / progress["done"], "per second": rate, "peak MiB": peak}


async def _documents(settings: Settings) -> int:
    """How many the read models have in MongoDB."""
    async with open_stores(settings, "daybook_query") as (_, mongo, redis):
        live = [await live_generation(mongo, redis, model, LEDGER) for model in READ_MODELS if model.store == "mongo"]
        return sum([await generation.collection(mongo).count_documents({}) for generation in live])


def _peak_mebibytes(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    _, _, peak = status.partition("VmHWM:")
    return int(peak.split()[0]) / 1024 if peak else 0
