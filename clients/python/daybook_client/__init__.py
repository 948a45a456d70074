"""A typed client of Daybook. `Daybook` is for threads, and `AsyncDaybook` has the same methods for asyncio.

Each operation of both APIs is a method with the name of its `operationId`. A refused request raises a subclass of `Problem`.
`daybook_client.bodies` has the types of what you send and get, and `daybook_client.webhooks` checks the signature of a delivery.
"""

from daybook_client.asyncio_client import AsyncDaybook
from daybook_client.client import Daybook
from daybook_client.money import Money
from daybook_client.problem import NoAnswer, Problem

__all__ = ["AsyncDaybook", "Daybook", "Money", "NoAnswer", "Problem"]
