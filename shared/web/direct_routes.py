"""Direct routes: requests that are answered without FastAPI's middleware and router.

FastAPI documents every route and could serve it too. But its middleware, router and dependencies take more time than most
requests themselves: `python -m bench steps` measured 2,399 commands per second with them and 3,311 without
(`docs/benchmarks.md`, "What each step gives"). So if a path has at most one variable part, its route is looked up in a dictionary
and called directly. All other requests go through FastAPI.

Both ways must give the same answer, byte for byte. So a direct route reads the request itself and uses no dependencies of
FastAPI, and an error becomes the same problem document either way. `tests/shared/test_direct_routes.py` sends requests to every
route in both ways.
"""

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from shared.web.compression import compressed_if_large
from shared.web.envelope import across_origins, enveloped
from shared.web.problems import answer_error
from shared.web.startup import run_lifespan

VARIABLE_PART: Final = 3
"""The index of a path's variable part: `/v1/accounts/{account_id}/balance` has the parts "", "v1", "accounts", id, "balance"."""

Respond = Callable[[Request], Coroutine[Any, Any, Response]]
DirectAnswer = tuple[str, type[Request], Respond]
"""The name of the path's variable part (or an empty text), the class of its requests, and the route's handler."""


class DirectRoute(APIRoute):
    """A route whose handler reads the whole request itself. The request is an instance of `request_class`."""

    request_class: ClassVar[type[Request]]


class DirectApp(FastAPI):
    """A FastAPI app that answers requests for direct routes itself and passes all other requests to FastAPI."""

    def __init__(self, **arguments: Any) -> None:
        # A slash at the end is another path. By default, FastAPI would redirect to a URL with whatever Host the request names.
        super().__init__(**arguments, redirect_slashes=False)

    def include_direct_routes(self, router: APIRouter, origins: str) -> None:
        """Adds the routes of a router. Web pages of `origins`, a list with commas, may call them. Call this only once.

        Routes that are added to the router later are not included.
        """
        self.include_router(router)
        self._by_path: dict[str, dict[str, DirectAnswer]] = {}
        # The key is the parts of the path, with an empty text in place of the variable part.
        self._by_shape: dict[tuple[str, ...], dict[str, DirectAnswer]] = {}
        for route in router.routes:
            if isinstance(route, DirectRoute):
                self._add(route)
        self._routed_by_fastapi = super().__call__
        self._answer_across_origins = across_origins(self._answer, origins)

    def _add(self, route: DirectRoute) -> None:
        parts, names = route.path.split("/"), list(route.param_convertors)
        answer = ("".join(names), route.request_class, route.get_route_handler())
        if not names:
            methods = self._by_path.setdefault(route.path, {})
        elif len(names) == 1 and parts[VARIABLE_PART] == "{" + names[0] + "}":
            parts[VARIABLE_PART] = ""
            methods = self._by_shape.setdefault(tuple(parts), {})
        else:
            return  # FastAPI serves it
        methods.update(dict.fromkeys(route.methods or (), answer))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await run_lifespan(self._routed_by_fastapi, scope, receive, send)
        else:
            await self._answer_across_origins(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        methods, variable = self._by_path.get(path), ""
        if methods is None:
            parts = path.split("/")
            if len(parts) > VARIABLE_PART:
                variable, parts[VARIABLE_PART] = parts[VARIABLE_PART], ""
                methods = self._by_shape.get(tuple(parts)) if variable else None
        direct = methods.get(scope["method"]) if methods else None
        if direct is None:
            await self._routed_by_fastapi(scope, receive, send)
            return
        name, request_class, respond = direct
        if name:
            scope["path_params"] = {name: variable}  # as Starlette's router does
        send = enveloped(scope, send)
        request = request_class(scope, receive)
        try:
            response = await respond(request)
        except Exception as error:  # noqa: BLE001 # every error gets a problem document, even an error in our code
            response = await answer_error(request, error)
        await response(scope, receive, compressed_if_large(scope, response, send))
