"""Receipts and consistency proofs as callers get them, and the script that checks a receipt without Daybook."""

import base64
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.sealing.sealer import make_sealer
from query_api.resources.receipts import ReceiptResponse
from query_api.resources.seals import ConsistencyResponse
from shared.log.encoding import canonical
from shared.proof.merkle import is_consistent
from shared.proof.seals import SealingKey, is_signed, known_keys, read_line
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.projecting import eventually
from tests.harness.questions import Questions, query_api
from tests.harness.seals import OTHER_KEY, SEAL_KEY, sealing

SCRIPT = Path(__file__).parents[2] / "docs/verify_receipt.py"
PUBLIC_KEY = SealingKey(SEAL_KEY).public_text()


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    """A query API without a projector: receipts need no read model."""
    async with query_api(settings) as questions:
        yield questions


async def seal(api: Questions, settings: Settings, folder: Path) -> None:
    sealer = make_sealer(api.stores.engine, sealing(settings, folder))
    assert sealer
    await sealer.seal_all()


def check(receipt: Any, folder: Path, key: str = PUBLIC_KEY) -> subprocess.CompletedProcess[str]:
    path = folder / "receipt.json"
    path.write_text(json.dumps(receipt), encoding="utf-8")
    return subprocess.run([sys.executable, SCRIPT, path, key], capture_output=True, text=True, check=False, cwd=folder)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values that are neither objects nor arrays."""
    if isinstance(value, dict | list):
        for name, member in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(member, (*path, name))
    else:
        yield path


def changed(value: Any) -> Any:
    if isinstance(value, int):
        return value + 1
    last = value[-1:]
    return value[:-1] + ("1" if last != "1" else "0")


def with_change(receipt: Any, path: tuple[Any, ...]) -> Any:
    copy = json.loads(json.dumps(receipt))
    place = copy
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = changed(place[path[-1]])
    return copy


def test_the_script_stands_alone_in_under_60_lines() -> None:
    source = SCRIPT.read_text()
    assert len(source.splitlines()) < 60
    imported = {line.split()[1].partition(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported - {"cryptography"} <= sys.stdlib_module_names


texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    texts | st.integers(-(2**53) + 1, 2**53 - 1) | st.none() | st.booleans(),
    lambda v: st.dictionaries(texts, v, max_size=5),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=4))
def test_canonical_json_equals_the_output_of_python_s_encoder(value: dict[str, Any]) -> None:
    assert canonical(value).decode() == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.slow
@pytest.mark.services
async def test_a_receipt_can_be_checked_offline_and_no_field_of_it_can_be_changed(
    api: Questions, settings: Settings, tmp_path: Path
) -> None:
    book = Book()
    opened = book.open_account(book.new_id())
    deposit = book.deposit(
        opened.account_id, 1_250, reference='Grüße, "Ada" \\ \n 😀', metadata={"order": "10\u007f42", "a": "\u2028"}
    )
    await api.record([opened, deposit, *book.history(11, accounts=2)])
    await seal(api, settings, tmp_path)
    answer = await api.ask(f"/v1/transfers/{deposit.transfer_id}/receipt")
    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    ReceiptResponse.model_validate(receipt)
    assert (receipt["position"], receipt["seal"]["position"], len(receipt["audit_path"])) == (2, 13, 4)
    checked = check(receipt, tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith(f"valid: event {receipt['event']['event_id']} is number 2 of 13, sealed ")
    for path in leaves(receipt):
        checked = check(with_change(receipt, path), tmp_path)
        assert checked.returncode == 1, path
        assert checked.stderr.startswith("NOT VALID: "), path
    audit_path = receipt["audit_path"]
    broken: list[Any] = [{**receipt, "audit_path": audit_path[1:]}, {**receipt, "audit_path": []}, {}, []]
    for without in broken:
        assert check(without, tmp_path).returncode == 1
    assert "another key" in check(receipt, tmp_path, SealingKey(OTHER_KEY).public_text()).stderr
    assert check(receipt, tmp_path, base64.b64encode(b"short").decode()).returncode == 1


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600])
async def test_every_movement_of_money_has_a_valid_receipt(api: Questions, settings: Settings, tmp_path: Path, size: int) -> None:
    book = Book()
    opened = [book.open_account(book.new_id()) for _ in range(size // 2)]
    deposits = [book.deposit(book.open_account(book.new_id()).account_id, 1) for _ in range(size - len(opened))]
    await api.record([*deposits[::2], *opened, *deposits[1::2]])
    await seal(api, settings, tmp_path)
    for deposit in (deposits[0], deposits[len(deposits) // 2], deposits[-1]):
        receipt = await api.get(f"/v1/transfers/{deposit.transfer_id}/receipt")
        assert receipt["event"]["data"]["transfer_id"] == deposit.transfer_id
        assert check(receipt, tmp_path).returncode == 0


@pytest.mark.services
async def test_a_transfer_that_no_seal_covers_has_no_receipt_yet(api: Questions, settings: Settings, tmp_path: Path) -> None:
    book = Book()
    account_id = book.open_account(book.new_id()).account_id
    first, second = book.deposit(account_id, 1), book.deposit(account_id, 2)
    await api.record([first])
    for sealed in (0, 1):
        transfer = second if sealed else first
        answer = await api.ask(f"/v1/transfers/{transfer.transfer_id}/receipt")
        assert (answer.status_code, answer.json()["code"]) == (503, "not-sealed-yet")
        assert (answer.json()["position"], answer.json()["sealed_position"]) == (sealed + 1, sealed)
        assert answer.headers["retry-after"] == "1"
        await seal(api, settings, tmp_path)
        if not sealed:
            await api.record([second])
    assert (await api.get(f"/v1/transfers/{second.transfer_id}/receipt"))["seal"]["position"] == 2
    missing = await api.ask(f"/v1/transfers/{uuid.uuid4()}/receipt")
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
    foreign = await api.ask(f"/v1/transfers/{first.transfer_id}/receipt", daybook_ledger="other")
    assert foreign.status_code == 404


@pytest.mark.services
async def test_seals_are_listed_newest_first_and_each_extends_those_before(
    api: Questions, settings: Settings, tmp_path: Path
) -> None:
    history = Book().history(700)
    for size in (3, 300, 1, 212):
        await api.record(event for _, event in zip(range(size), history, strict=False))
        await seal(api, settings, tmp_path)
    pages = await api.pages("/v1/seals", {"limit": 3})
    seals = [item for page in pages for item in page]
    assert [item["position"] for item in seals] == [516, 304, 303, 3]
    assert len(pages) == 2
    keys = known_keys(None, [PUBLIC_KEY])
    for item in seals:
        found = read_line(json.dumps({"event": "seal", **item}).encode())
        assert found
        assert is_signed(found, keys)
    for new in seals:
        for old in seals:
            answer = await api.ask(f"/v1/seals/{new['position']}/consistency", {"from": old["position"]})
            if old["position"] > new["position"]:
                assert answer.status_code == 404
                continue
            proof = answer.json()
            ConsistencyResponse.model_validate(proof)
            assert (proof["from"], proof["to"]) == (old, new)
            roots = bytes.fromhex(old["root"]), bytes.fromhex(new["root"])
            path = [bytes.fromhex(node) for node in proof["path"]]
            assert is_consistent(old["position"], roots[0], new["position"], roots[1], path)
            assert not is_consistent(old["position"], roots[0], new["position"], roots[1], [*path, bytes(32)])


@pytest.mark.services
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/seals/3/consistency?from=2", 404),
        ("/v1/seals/2/consistency?from=3", 404),
        ("/v1/seals/3/consistency", 422),
        ("/v1/seals/3/consistency?from=0", 422),
        ("/v1/seals/x/consistency?from=3", 422),
        ("/v1/seals?limit=0", 422),
        ("/v1/seals?unknown=1", 422),
        ("/v1/seals?cursor=x", 400),
        ("/v1/transfers/x/receipt", 422),
    ],
)
async def test_invalid_queries_about_seals_are_rejected(
    api: Questions, settings: Settings, tmp_path: Path, path: str, status: int
) -> None:
    await api.record(Book().history(3))
    await seal(api, settings, tmp_path)
    assert (await api.client.get(path)).status_code == status


@pytest.mark.services
async def test_readyz_says_if_the_log_is_sealed(api: Questions, settings: Settings, tmp_path: Path) -> None:
    assert (await api.client.get("/readyz")).json()["sealed_at"].startswith("never: ")
    await api.record(Book().history(3))
    await seal(api, settings, tmp_path)
    [newest] = (await api.get("/v1/seals"))["items"]

    async def shows_the_seal() -> bool:
        return bool((await api.client.get("/readyz")).json()["sealed_at"] == newest["sealed_at"])

    await eventually(shows_the_seal)
