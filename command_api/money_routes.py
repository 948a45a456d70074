"""The routes that move money: deposits, withdrawals, transfers and their reversals, one by one or many at once."""

from fastapi import APIRouter, Response

from command_api.answers import (
    OutsideTransferBody,
    TransferBody,
    TransferResults,
    transfer_body,
)
from command_api.batch_answers import CommandResults, answered
from command_api.documentation import BATCH_PROBLEMS, LIMIT_PROBLEMS, MONEY_PROBLEMS, TRANSFER_PROBLEMS, documented
from command_api.domain.command_batch import CommandBatch
from command_api.domain.exchange import ExchangeFunds
from command_api.domain.postings import MoveFunds
from command_api.domain.reversal import Reversal, ReverseTransfer
from command_api.domain.transfer import Deposit, TransferFunds, Withdraw
from command_api.domain.transfer_batch import TransferBatch
from command_api.exchange_answers import ExchangeBody, exchange_body
from command_api.posting_answers import PostingsBody, postings_body
from command_api.requests import CommandRoute, HttpRequest
from command_api.reversal_answers import ReversalBody, reversal_body
from shared.errors import Forbidden
from shared.identity.access import only, own_or
from shared.input_types import Id

money_router = APIRouter(prefix="/v1", route_class=CommandRoute)


@money_router.post(
    "/deposits",
    status_code=201,
    response_model=OutsideTransferBody,
    **documented(*MONEY_PROBLEMS, "balance-out-of-range", access=only("transfers:write"), money=True),
)
async def deposit(command: Deposit, request: HttpRequest) -> Response:
    """Move money from the outside world into an account."""
    return await request.run(command, transfer_body, new="transfers", moves_money=True)


@money_router.post(
    "/withdrawals",
    status_code=201,
    response_model=OutsideTransferBody,
    **documented(*MONEY_PROBLEMS, *LIMIT_PROBLEMS, "insufficient-funds", access=own_or("transfers:write"), money=True),
)
async def withdraw(command: Withdraw, request: HttpRequest) -> Response:
    """Move money from an account to the outside world."""
    return await request.run(command, transfer_body, new="transfers", moves_money=True)


@money_router.post(
    "/transfers",
    status_code=201,
    response_model=TransferBody | PostingsBody,
    **documented(*TRANSFER_PROBLEMS, "postings-unbalanced", access=own_or("transfers:write"), money=True),
)
async def transfer_funds(command: TransferFunds | MoveFunds, request: HttpRequest) -> Response:
    """Move money from one account to another of the same currency, or between many accounts with `postings`.

    Customers cannot send `postings`.
    """
    if isinstance(command, TransferFunds):
        return await request.run(command, transfer_body, new="transfers", moves_money=True)
    if request.principal.user_id is not None:
        msg = "Customers cannot send postings."
        raise Forbidden(msg)
    return await request.run(command, postings_body, new="transfers", moves_money=True)


@money_router.post(
    "/exchanges",
    status_code=201,
    response_model=ExchangeBody,
    **documented(*TRANSFER_PROBLEMS, access=only("transfers:write"), money=True),
)
async def exchange_funds(command: ExchangeFunds, request: HttpRequest) -> Response:
    """Change money of one account into another currency, at a rate that you state, through two accounts of the house.

    The payee gets whole minor units, rounded half to even. What rounding leaves belongs to the remainder account.
    """
    return await request.run(command, exchange_body, new="transfers", moves_money=True)


@money_router.post(
    "/transfers/{transfer_id}/reverse",
    status_code=201,
    response_model=ReversalBody,
    **documented(
        "amount-out-of-range",
        "id-taken",
        "transfer-not-reversible",
        "account-closed",
        "account-frozen",
        "transfer-already-reversed",
        "too-many-reversals",
        "reversal-amount-exceeded",
        "insufficient-funds",
        "balance-out-of-range",
        access=only("transfers:write"),
        money=True,
    ),
)
async def reverse_transfer(transfer_id: Id, body: Reversal, request: HttpRequest) -> Response:
    """Move money of a transfer, a deposit or a withdrawal back, all that was not reversed before or a part of it.

    Nothing moves back that the account no longer has, except as far as its overdraft limit allows.
    """
    command = ReverseTransfer(transfer_id=transfer_id, reversal=body)
    return await request.run(command, reversal_body, new="transfers", moves_money=True)


@money_router.post(
    "/transfers/batch",
    response_model=TransferResults,
    **documented(*TRANSFER_PROBLEMS, access=own_or("transfers:write"), money=True),
)
async def transfer_many(wanted: TransferBatch, request: HttpRequest) -> Response:
    """Make many transfers in one request. Mode `independent` decides each one separately; `atomic` records all or none."""
    await request.count_commands(len(wanted.transfers))
    transfers = [answered(transfer) for transfer in wanted.transfers]
    return await (request.run_each(transfers) if wanted.mode == "independent" else request.run_together(transfers))


@money_router.post(
    "/batch",
    response_model=CommandResults,
    **documented(*BATCH_PROBLEMS, access=only("transfers:write"), money=True),
)
async def run_batch(wanted: CommandBatch, request: HttpRequest) -> Response:
    """Send many commands of several kinds in one request.

    Mode `independent` decides each one separately; `atomic` records all or none. If it records none, the answer is that of the
    first command that is rejected, and `index` is its place, counted from 0. Items that capture or release a hold name it in
    `hold_id`, and those that reverse a transfer in `transfer_id`.
    """
    await request.count_commands(len(wanted.commands))
    commands = [answered(item.command()) for item in wanted.commands]
    return await (request.run_each(commands) if wanted.mode == "independent" else request.run_together(commands))
