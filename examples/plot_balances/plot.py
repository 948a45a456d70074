"""Draws the balance of each account over time, from a Parquet file of `GET /v1/reports/entries`.

python plot.py entries.parquet balances.svg
"""

import sys
from collections import defaultdict

import matplotlib as mpl
import pyarrow.parquet as pq

mpl.use("svg")

from matplotlib import pyplot as plt  # the kind of picture must be chosen first

COLUMNS = ["account_id", "currency", "position", "recorded_at", "balance"]


def main(source: str, target: str) -> None:
    lines = defaultdict(list)
    for row in sorted(pq.read_table(source, columns=COLUMNS).to_pylist(), key=lambda row: row["position"]):
        lines[row["account_id"], row["currency"]].append((row["recorded_at"], row["balance"]))
    figure, axes = plt.subplots(figsize=(10, 5))
    for (account_id, currency), points in sorted(lines.items()):
        moments, balances = zip(*points, strict=True)
        axes.step(moments, balances, where="post", label=f"{account_id[:8]} {currency}")
    axes.set_ylabel("minor units")
    axes.legend()
    figure.savefig(target)
    for (account_id, currency), points in sorted(lines.items()):
        print(account_id, len(points), "entries, ends at", points[-1][1], currency)


if __name__ == "__main__":
    main(*sys.argv[1:])
