"""A plain CRUD API with a balance column, which Daybook replaces. Each request locks two rows, inserts one and commits.

The API has no history, no idempotency and no read models. It locks accounts in the order of their ids, to avoid deadlocks.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Final

import asyncpg
from fastapi import Depends, FastAPI, HTTPException, Request
from sqlalchemy import BigInteger, DateTime, ForeignKey, Text, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from command_api.domain.transfer import TransferFunds
from shared.garbage_collection import calm_collector

DATABASE_URL: Final = "BENCH_DATABASE_URL"


class CrudTable(DeclarativeBase):
    pass


class CrudAccount(CrudTable):
    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    balance: Mapped[int] = mapped_column(BigInteger)


class CrudTransfer(CrudTable):
    __tablename__ = "transfers"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    from_account_id: Mapped[str] = mapped_column(ForeignKey(CrudAccount.id), index=True)
    to_account_id: Mapped[str] = mapped_column(ForeignKey(CrudAccount.id), index=True)
    amount: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


async def make_tables(url: str, account_ids: list[str], balance: int) -> None:
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    async with engine.begin() as connection:
        await connection.run_sync(CrudTable.metadata.create_all)
    await engine.dispose()
    connection_: asyncpg.Connection = await asyncpg.connect(url)
    await connection_.copy_records_to_table("accounts", records=[(account_id, balance) for account_id in account_ids])
    await connection_.execute("ANALYZE")
    await connection_.close()


async def session_of(request: Request) -> AsyncIterator[AsyncSession]:
    sessions: Callable[[], Any] = request.state.sessions
    async with sessions() as session:
        yield session


def create_app() -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        url = make_url(os.environ[DATABASE_URL]).set(drivername="postgresql+asyncpg")
        engine = create_async_engine(url, pool_size=20, max_overflow=0)
        calm_collector()
        yield {"sessions": async_sessionmaker(engine, expire_on_commit=False)}
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.post("/transfers", status_code=201)(transfer_funds)
    app.get("/readyz")(ready)
    return app


async def transfer_funds(command: TransferFunds, session: Annotated[AsyncSession, Depends(session_of)]) -> TransferFunds:
    async with session.begin():
        asked = select(CrudAccount).where(CrudAccount.id.in_([command.from_account_id, command.to_account_id]))
        found = await session.scalars(asked.order_by(CrudAccount.id).with_for_update())
        accounts = {account.id: account for account in found}
        payer, payee = accounts[command.from_account_id], accounts[command.to_account_id]
        if payer.balance < command.amount:
            raise HTTPException(409)
        payer.balance -= command.amount
        payee.balance += command.amount
        session.add(
            CrudTransfer(
                id=command.id,
                from_account_id=payer.id,
                to_account_id=payee.id,
                amount=command.amount,
                currency=command.currency,
            )
        )
    return command


async def ready() -> dict[str, str]:
    return {"status": "ok"}
