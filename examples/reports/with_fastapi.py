"""A plain FastAPI app that answers from the reporting database with SQLModel and a session that `Depends` gives.

REPORTS_URL=sqlite:////path/reports.sqlite uvicorn with_fastapi:app --port 8080
"""

import os
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlmodel import Field, Session, SQLModel, create_engine, select

engine = create_engine(os.environ["REPORTS_URL"])
app = FastAPI()


class LiveAccount(SQLModel, table=True):
    """A row of the view of live accounts, with the columns that this app needs. `posted` is in minor units."""

    __tablename__ = "live_accounts"

    ledger_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    owner_id: str
    currency: str
    posted: int


def open_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@app.get("/owners/{owner_id}/accounts")
def accounts_of(owner_id: str, session: Annotated[Session, Depends(open_session)]) -> list[LiveAccount]:
    """Lists the accounts of an owner. 404 if there is none."""
    question = select(LiveAccount).where(LiveAccount.ledger_id == "main", LiveAccount.owner_id == owner_id)
    found = session.exec(question.order_by(LiveAccount.currency, LiveAccount.id)).all()
    if not found:
        raise HTTPException(404, "This owner has no account.")
    return [*found]
