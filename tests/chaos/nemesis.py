"""Strikes parts of a cluster in random order, also two at once and during rebuilds. The seed decides what and for how long."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from dev.child_processes import Child
from shared.errors import StackError
from tests.chaos.cluster import Cluster
from tests.harness.clocks import SEEN_SECONDS, JumpingClock
from tests.harness.proxy import Proxy

LOOK_SECONDS: Final = 0.3
FAULT_SECONDS: Final = (0.2, 2.5)
DELAY_SECONDS: Final = (0.02, 0.4)
JUMP_HOURS_MAX: Final = 12
REBUILT: Final = ("balances", "transfers", "holds", "statistics")
TWO_AT_ONCE_OF_10: Final = 4

Strike = tuple[str, Callable[[float], Awaitable[None]]]


class Nemesis:
    """What can be struck, and how."""

    def __init__(self, cluster: Cluster, seed: int, only: str = "") -> None:
        """Makes a nemesis that does only strikes whose names begin with `only`."""
        self._cluster = cluster
        self._only = only
        self._random = Random(f"nemesis {seed}")
        self._down: set[Child] = set()
        self.struck: list[str] = []

    def strikes(self) -> list[Strike]:
        """Returns every strike, each with its name."""
        cluster = self._cluster
        found: list[Strike] = []
        names = {
            **{f"command API {number}": each for number, each in enumerate(cluster.command_apis, 1)},
            "query API": cluster.query_api,
            **{f"worker {number}": each for number, each in enumerate(cluster.workers, 1)},
            **cluster.stores,
        }
        for name, child in names.items():
            found.append((f"kill {name}", partial(self._kill, child)))
            found.append((f"freeze {name}", partial(self._freeze, child)))
        for name, proxy in cluster.proxies.items():
            found.append((f"cut off {name}", partial(self._cut, proxy)))
            found.append((f"delay {name}", partial(self._delay, proxy)))
            found.append((f"lose what is sent to {name}", partial(self._lose, proxy)))
        found.extend((f"turn the clock of {name}", partial(self._turn, clock)) for name, clock in cluster.clocks.items())
        found.append(("swallow a reply to COMMIT", partial(self._swallow, cluster.proxies["postgres"])))
        found.extend((f"rebuild {name}", partial(self._rebuild, name)) for name in REBUILT)
        if cluster.disk:
            found.append(("fill the disk", self._fill_disk))
        return [(name, act) for name, act in found if name.startswith(self._only)]

    async def strike(self) -> None:
        """Strikes once, or twice at once, and returns when the parts run again."""
        strikes = self.strikes()
        chosen = self._random.sample(strikes, 2 if self._random.randrange(10) < TWO_AT_ONCE_OF_10 else 1)
        self.struck += [name for name, _ in chosen]
        await asyncio.gather(*(act(self._random.uniform(*FAULT_SECONDS)) for _, act in chosen))

    async def supervise(self) -> None:
        """Starts whatever has ended and is not struck, for ever, as a supervisor of processes does."""
        await asyncio.gather(*(self._keep_up(child) for child in self._cluster.children))

    async def _keep_up(self, child: Child) -> None:
        while True:
            if not child.running and child not in self._down:
                with suppress(StackError):  # it is tried again: another part may be struck
                    await child.start()
            await asyncio.sleep(LOOK_SECONDS)

    async def _kill(self, child: Child, seconds: float) -> None:
        self._down.add(child)
        await child.kill()
        await asyncio.sleep(seconds)
        self._down.discard(child)

    async def _freeze(self, child: Child, seconds: float) -> None:
        if child.running:
            child.freeze()
            await asyncio.sleep(seconds)
        if child.running:
            child.thaw()

    async def _cut(self, proxy: Proxy, seconds: float) -> None:
        proxy.cut_all()
        await asyncio.sleep(seconds / 2)
        proxy.cut_all()

    async def _delay(self, proxy: Proxy, seconds: float) -> None:
        proxy.delay_seconds = self._random.uniform(*DELAY_SECONDS)
        await asyncio.sleep(seconds)
        proxy.delay_seconds = 0.0

    async def _lose(self, proxy: Proxy, seconds: float) -> None:
        proxy.losing = True
        await asyncio.sleep(seconds)
        proxy.losing = False
        proxy.cut_all()  # a connection that lost some bytes is of no use

    async def _turn(self, clock: JumpingClock, seconds: float) -> None:
        """Makes a clock jump by hours, ahead and then back, or the other way round, and then to the right time."""
        hours = self._random.choice((-1, 1)) * self._random.randint(1, JUMP_HOURS_MAX)
        for each in (hours, -hours):
            clock.jump_to(each * 3_600)
            await asyncio.sleep(SEEN_SECONDS + seconds / 2)
        clock.jump_to(0)

    async def _swallow(self, proxy: Proxy, seconds: float) -> None:
        for _ in range(3):
            proxy.arm(b"COMMIT", silent=self._random.random() < 0.3)
            await asyncio.sleep(seconds / 3)
        proxy.arm(b"")
        proxy.cut_all()

    async def _rebuild(self, name: str, _seconds: float) -> None:
        await self._cluster.daybook("rebuild", "projections", "rebuild", name)

    async def _fill_disk(self, seconds: float) -> None:
        assert self._cluster.disk
        filler = self._cluster.disk / "filler"
        await asyncio.to_thread(_fill, filler)
        await asyncio.sleep(seconds)
        filler.unlink()


def _fill(filler: Path) -> None:
    with filler.open("wb") as out:
        try:
            while True:
                out.write(bytes(1 << 20))
        except OSError:
            pass
