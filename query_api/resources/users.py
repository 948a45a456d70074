"""Users: a list that can be searched, and single users by id."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from fastapi import Query, Response
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented_one, documented_page
from query_api.lists import ListSlice, MongoMatch, both, found_by_match, members_of, read_list, read_one, sort_orders
from query_api.parameters import MetadataPairs, ServedParameters
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import ADA, MOMENT, AsOfPosition, ResourceVersion, ResponseModel, TimestampText
from shared.identity.access import own_or
from shared.input_types import Id
from shared.read_models.shapes import USERS, found_by, found_by_email, search_words
from shared.text_types import EmailAddress

router = query_router()


class UserResource(ResponseModel):
    id: str
    name: Annotated[str | None, Field(description="null if the user was erased.")]
    email: Annotated[str | None, Field(description="null if the user was erased.")]
    metadata: Annotated[dict[str, str] | None, Field(description="null if there are none, or if the user was erased.")]
    status: Literal["active", "inactive", "erased"]
    created_at: TimestampText
    changed_at: TimestampText
    version: ResourceVersion


class UserResponse(UserResource):
    position: AsOfPosition


USER_EXAMPLE: Final = {
    "id": ADA,
    "name": "Ada",
    "email": "ada@example.com",
    "metadata": {"customer_number": "4711"},
    "status": "active",
    "created_at": MOMENT,
    "changed_at": MOMENT,
    "version": 1,
}


def _searchable(value: str) -> str:
    if not search_words(value):
        code, message = "search_empty", "Must contain a letter or a digit"
        raise PydanticCustomError(code, message)
    return value


Search = Annotated[str, Field(min_length=1, max_length=100), BeforeValidator(_searchable)]


class UserParameters(ServedParameters, MetadataPairs):
    served: ClassVar[Mapping[str, frozenset[str]]] = {
        "created_at": frozenset(("email", "metadata", "search", "status")),
        "name": frozenset(("search", "status")),
    }
    email: Annotated[EmailAddress, Field(description="Only the user with this address, in any case of letters.")] | None = None
    status: Literal["active", "inactive", "erased"] | None = None
    search: (
        Annotated[
            Search,
            Field(description="Only users with a match for every word: their name or address has a word that begins with it."),
        ]
        | None
    ) = None
    sort: Literal["created_at", "-created_at", "name", "-name"] = "created_at"


USER_ORDERS: Final = sort_orders({"created_at": ("created_at", "_id"), "name": ("name", "_id")})


async def find_users(view: CallerView, parameters: UserParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    match: MongoMatch = {"status": parameters.status} if parameters.status else {}
    if parameters.search:
        match["$and"] = [{"search": {"$elemMatch": _prefix(word)}} for word in search_words(parameters.search)]
    texts = found_by(found_by_email(parameters.email) if parameters.email else (), metadata=parameters.metadata)
    match |= found_by_match(texts)
    return await read_list(view, USERS, both(match, view.own("_id")), USER_ORDERS[parameters.sort], parameters, key, _user)


async def find_user(view: CallerView, user_id: str) -> AsOf[JsonObject | None]:
    return await read_one(view, USERS, user_id, _user, view.own("_id"))


def _prefix(word: str) -> MongoMatch:
    """Returns a filter for all texts that begin with the word. The filter is a range, so that MongoDB can use the index."""
    return {"$gte": word, "$lt": word + "\U0010ffff"}


def _user(document: JsonObject) -> JsonObject:
    user = members_of(document, "name", "email", "metadata", "status", "created_at", "changed_at", "version")
    if user["status"] == "erased":
        user["name"] = user["email"] = None
    return user


@router.get("/users", tags=["users"], **documented_page(UserResource, USER_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")))
async def list_users(request: QueryRequest, parameters: Annotated[UserParameters, Query()]) -> Response:
    """List users, by default in the order in which they were created."""
    found = await find_users(request.view(), parameters, request.cursor_key(parameters))
    return request.answer_page(found, parameters)


@router.get("/users/{user_id}", tags=["users"], **documented_one(UserResponse, USER_EXAMPLE, access=own_or("ledger:read")))
async def get_user(request: QueryRequest, user_id: Id) -> Response:
    """Get a user."""
    return request.answer_one(await find_user(request.view(), user_id))
