"""The network between the simulated processes: how long a message takes, and which messages are lost."""

import asyncio
from random import Random
from typing import Final, Literal

Loss = Literal["none", "request", "reply", "silence"]
"""`request`: the connection breaks before the server has it. `reply`: after the server has done it. `silence`: nothing comes."""

CALM_SECONDS: Final = (0.000_2, 0.002)
ROUGH_SECONDS: Final = (0.000_2, 0.08)
LOSSES_OF_1000: Final = 25


class Weather:
    """Decides by the seed. While it is rough, messages are late and connections break."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.rough = True

    async def travel(self) -> None:
        await asyncio.sleep(self.seconds())

    def seconds(self) -> float:
        is_late = self.rough and self.random.random() < 0.1
        return self.random.uniform(*(ROUGH_SECONDS if is_late else CALM_SECONDS))

    def loss(self, of_1000: int = LOSSES_OF_1000) -> Loss:
        if not self.rough or self.random.randrange(1000) >= of_1000:
            return "none"
        return self.random.choice(("request", "reply", "reply", "silence"))
