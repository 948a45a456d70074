"""Keeps balances that the query API has answered in Redis, and forgets them when the read model has moved.

    python balances.py ACCOUNT_ID

Prints `asked` or `kept` with each balance, once a second. Needs DAYBOOK_QUERY_URL, DAYBOOK_API_KEY and DAYBOOK_REDIS_URL.
"""

import json
import os
import sys
import time
from typing import Any

import httpx
import redis

MOVED = "daybook:moved"  # the worker publishes the new positions of read models here: {"main/balances": 812}
READ_MODEL = "main/balances"
KEEP_SECONDS = 60  # a message can be lost, so no answer is kept for long


class CachedBalances:
    """Balances by account. A kept answer is of a moment before the last change that this program has heard of."""

    def __init__(self, query_api: httpx.Client, cache: redis.Redis) -> None:
        self._query_api = query_api
        self._cache = cache
        self._moved = cache.pubsub(ignore_subscribe_messages=True)
        self._moved.subscribe(MOVED)
        self._position = 0

    def get(self, account_id: str) -> tuple[str, dict[str, Any]]:
        """Returns `kept` or `asked`, and the balance. Its `position` says which events it has."""
        self._hear()
        key = f"example:balance:{account_id}:{self._position}"
        if kept := self._cache.get(key):
            return "kept", json.loads(kept)
        answer = self._query_api.get(f"/v1/accounts/{account_id}/balance").raise_for_status().json()
        self._cache.set(key, json.dumps(answer), ex=KEEP_SECONDS)
        return "asked", answer

    def _hear(self) -> None:
        """Takes the messages that have come. The key of a kept answer has the position, so a new one makes older ones unused."""
        while message := self._moved.get_message(timeout=0.01):
            self._position = max(self._position, json.loads(message["data"]).get(READ_MODEL, 0))


def main(account_id: str) -> None:
    headers = {"Authorization": f"Bearer {os.environ['DAYBOOK_API_KEY']}"}
    with httpx.Client(base_url=os.environ["DAYBOOK_QUERY_URL"], headers=headers) as query_api:
        balances = CachedBalances(query_api, redis.Redis.from_url(os.environ["DAYBOOK_REDIS_URL"]))
        while True:
            where, balance = balances.get(account_id)
            print(where, balance["position"], balance["posted"], flush=True)
            time.sleep(1)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(130)
