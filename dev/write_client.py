"""Writes what clients/python has for each operation and problem, from the OpenAPI documents of both APIs.

Run `make client` after you add or change a route, a body or a problem code. A test compares the files with what this makes.
"""

import base64
import keyword
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import command_api.app
import query_api.app
from dev.data_folder import ROOT
from shared.settings import Settings
from shared.web.problems import ERROR_OF_CODE, STATUS

PACKAGE: Final = ROOT / "clients/python/daybook_client"
MADE: Final = '"""{} `make client` writes this file from the OpenAPI documents."""\n\n'
PROBES: Final = frozenset({"livez", "readyz", "version_", "metrics"})
"""Operations about a process and not about a ledger."""
BY_HAND: Final = frozenset({"stream_events"})
"""Operations whose method is in `asyncio_client`."""
HEADER_ARGUMENTS: Final = {
    "Idempotency-Key": ("idempotency_key", "str"),
    "If-Match": ("if_match", "int"),
    "Daybook-Ledger": ("ledger", "str"),
    "Daybook-Min-Position": ("min_position", "int"),
}
TO_THREADS: Final = (
    (
        "The client for asyncio. `make client` makes `client.py` of it, the one for threads, by leaving out `async` and `await`.",
        "The client for threads. `make client` writes this file from `asyncio_client.py`.",
    ),
    ("for asyncio. Tasks can", "for threads. They can"),
    ("import asyncio\nimport os\n", "import os\n"),
    ("from time import monotonic\n", "from time import monotonic, sleep\n"),
    ("AsyncIterator, Awaitable, Callable, Mapping", "Callable, Iterator, Mapping"),
    ("Awaitable[Page[T]]", "Page[T]"),
    ("asyncio.sleep", "sleep"),
    ('for item in page["items"]:\n                yield item\n', 'yield from page["items"]\n'),
    ("aclose", "close"),
    ("aread", "read"),
    ("__aenter__", "__enter__"),
    ("__aexit__", "__exit__"),
)

Document = Mapping[str, Any]


def documents() -> dict[str, Document]:
    """Returns the OpenAPI documents of both APIs. The apps never start, so they connect to nothing."""
    settings = Settings(
        database_url="postgresql://u:p@127.0.0.1:1/x",
        mongo_url="mongodb://127.0.0.1:1/",
        redis_url="redis://127.0.0.1:1/0",
        secret="for documents and for nothing else at all",  # noqa: S106 # signs nothing
        master_keys=base64.b64encode(bytes(32)).decode(),
    )
    return {"command": command_api.app.create_app(settings).openapi(), "query": query_api.app.create_app(settings).openapi()}


def client_files() -> dict[Path, str]:
    """Returns the content of each file, in the format of this project."""
    apis = documents()
    files = {"bodies": _bodies(apis), "operations": _operations(apis), "problems": _problems(), "client": _client()}
    return {PACKAGE / f"{name}.py": _formatted(PACKAGE / f"{name}.py", text) for name, text in files.items()}


def operations_of(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields the method, the path and the description of each operation about a ledger."""
    for path, item in document["paths"].items():
        yield from ((method, path, each) for method, each in item.items() if each["operationId"] not in PROBES)


# ── types ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _bodies(apis: Mapping[str, Document]) -> str:
    text = [MADE.format("The types of what is sent and answered.")]
    text.append("from datetime import datetime\nfrom decimal import Decimal\n")
    text.append("from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar\nfrom uuid import UUID\n\n")
    text.append("from daybook_client.money import Money\n\nT = TypeVar('T')\n\n\n")
    text.append('class Page(TypedDict, Generic[T]):\n    items: "list[T]"\n    next: str | None\n    position: int\n\n\n')
    classes: dict[str, str] = {}
    for document in apis.values():
        schemas = document["components"]["schemas"]
        sent = _reachable(schemas, [body for *_, each in operations_of(document) if (body := _sent_schema(each))])
        for name, schema in schemas.items():
            if schema.get("type") == "object" and name != "Problem" and not name.startswith("Page_"):
                written = _typed_dict(name, _members(schema, is_sent=name in sent))
                if classes.setdefault(name, written) != written:
                    raise ValueError(f"the two APIs mean different things by {name}")
        for *_, each in operations_of(document):
            name = f"{_class_name(each['operationId'])}Arguments"
            classes[name] = _typed_dict(name, _arguments(document, each))
    return "".join([*text, *classes.values()])


def _reachable(schemas: Mapping[str, Any], roots: list[Any]) -> set[str]:
    found: set[str] = set()
    waiting = set(re.findall(r"schemas/(\w+)", str(roots)))
    while waiting:
        found |= waiting
        waiting = {name for each in waiting for name in re.findall(r"schemas/(\w+)", str(schemas[each]))} - found
    return found


def _members(schema: Mapping[str, Any], *, is_sent: bool) -> dict[str, str]:
    """Member → its type. In what is sent, an amount beside its currency is `Money`."""
    properties, required = schema.get("properties", {}), schema.get("required", ())
    members = {name: _type(each, is_sent=is_sent) for name, each in properties.items()}
    if is_sent and "amount" in members and "currency" in members:
        members["amount"] = members["amount"].replace("int", "Money")
        del members["currency"]
    members |= {name: f"{type_} | Money" for name, type_ in members.items() if is_sent and name in {"from_amount", "to_amount"}}
    return {name: type_ if name in required else f"NotRequired[{type_}]" for name, type_ in members.items()}


def _arguments(document: Document, operation: Mapping[str, Any]) -> dict[str, str]:
    """The keyword arguments of an operation: members of its body, parameters of its query, headers."""
    arguments: dict[str, str] = {}
    for name in _sent_names(operation):
        members = _members(document["components"]["schemas"][name], is_sent=True)
        arguments |= {each: arguments.get(each, type_) for each, type_ in members.items()}
    if len(names := _sent_names(operation)) > 1:  # one of several forms: what one of them lacks is required by none
        required = set.intersection(*(set(document["components"]["schemas"][name].get("required", ())) for name in names))
        arguments = {name: each if name in required else _not_required(each) for name, each in arguments.items()}
    for parameter in operation.get("parameters", ()):
        type_ = _type(parameter.get("schema", {}), is_sent=True)
        if parameter["in"] == "query":
            arguments[_argument(parameter["name"])] = type_ if parameter.get("required") else f"NotRequired[{type_}]"
        elif header := HEADER_ARGUMENTS.get(parameter["name"]):
            arguments[header[0]] = f"NotRequired[{header[1]}]"
    return arguments


def _not_required(type_: str) -> str:
    return type_ if type_.startswith("NotRequired[") else f"NotRequired[{type_}]"


def _typed_dict(name: str, members: Mapping[str, str]) -> str:
    """The functional form, because members such as `from` are no names of Python; its quotes let types name later ones."""
    if not any(keyword.iskeyword(member) for member in members):
        body = "".join(f'    {member}: "{type_}"\n' for member, type_ in members.items())
        return f"class {name}(TypedDict):\n{body or '    pass'}\n\n"
    return f'{name} = TypedDict("{name}", {{{", ".join(f"{member!r}: {type_!r}" for member, type_ in members.items())}}})\n\n\n'


def _type(schema: Mapping[str, Any], *, is_sent: bool = False) -> str:
    match schema:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return _page_type(name) if name.startswith("Page_") else name
        case {"anyOf": list(choices)} | {"oneOf": list(choices)}:
            return " | ".join(dict.fromkeys(_type(choice, is_sent=is_sent) for choice in choices))
        case {"const": value}:
            return f"Literal[{value!r}]"
        case {"enum": list(choices)}:
            return f"Literal[{', '.join(map(repr, choices))}]"
        case {"type": "array"}:
            return f"list[{_type(schema.get('items', {}), is_sent=is_sent)}]"
        case {"type": "object"}:
            values: Any = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), {})
            return f"dict[str, {_type(values, is_sent=is_sent) if isinstance(values, dict) else 'Any'}]"
        case {"type": "string", "format": "date-time"} if is_sent:
            return "str | datetime"
        case {"type": "string"} if is_sent and schema.get("title") == "Rate":
            return "str | Decimal"
        case {"type": "string", "pattern": str(pattern)} if is_sent and "{12}" in pattern:
            return "str | UUID"
    names = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
    return names.get(str(schema.get("type")), "Any")


def _page_type(name: str) -> str:
    items = name.removeprefix("Page_").strip("_").removeprefix("Union_").split("__")
    return f"Page[{' | '.join(item.strip('_') for item in items)}]"


# ── operations ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _operations(apis: Mapping[str, Document]) -> str:
    table, methods = [], []
    for api, document in apis.items():
        for method, path, each in operations_of(document):
            table.append(f"    {each['operationId']!r}: {_operation(document, api, method, path, each)},\n")
            if each["operationId"] not in BY_HAND:
                methods.append(_method(path, each))
    return "".join(
        [
            MADE.format("All operations of both APIs, as methods."),
            "from abc import ABC, abstractmethod\nfrom collections.abc import Mapping\n",
            "from typing import Any, Final, Unpack\nfrom uuid import UUID\n\n",
            f"from daybook_client.bodies import {', '.join(sorted(_classes_in(methods)))}\n",
            "from daybook_client.exchange import Operation\n\n",
            "OPERATIONS: Final[Mapping[str, Operation]] = {\n",
            *table,
            "}\n\n\n",
            *_class("Operations", methods),
            "\n\n",
            *(
                _class(
                    "AsyncOperations",
                    [each.replace("def ", "async def ").replace("return self", "return await self") for each in methods],
                )
            ),
        ]
    )


def _classes_in(methods: list[str]) -> set[str]:
    """The types that the signatures name."""
    signatures = [each.partition(":\n")[0] for each in methods]
    return set(re.findall(r"\b[A-Z]\w+\b", "".join(signatures))) - {"UUID", "Unpack", "None", "Any"}


def _class(name: str, methods: list[str]) -> list[str]:
    word = "async " if name.startswith("Async") else ""
    call = "(self, name: str, path_arguments: Mapping[str, str], arguments: Mapping[str, Any]) -> Any: ..."
    return [f"class {name}(ABC):\n", *methods, f"\n    @abstractmethod\n    {word}def _call{call}\n"]


def _operation(document: Document, api: str, method: str, path: str, operation: Mapping[str, Any]) -> str:
    schemas = document["components"]["schemas"]
    headers = {each["name"] for each in operation.get("parameters", ())}
    query = {_argument(each["name"]): each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    body = sorted({member for name in _sent_names(operation) for member in schemas[name]["properties"]})
    parts = [repr(api), repr(method.upper()), repr(path)]
    parts += [f"query={query}"] if query else []
    parts += [f"body=frozenset({body})"] if body else []
    parts += ["has_key=True"] if "Idempotency-Key" in headers else []
    parts += ["has_freshness=True"] if "Daybook-Min-Position" in headers else []
    return f"Operation({', '.join(parts)})"


def _method(path: str, operation: Mapping[str, Any]) -> str:
    name, variables = operation["operationId"], re.findall(r"\{(\w+)\}", path)
    parameters = "".join(f"{each}: {'int' if each == 'position' else 'str | UUID'}, " for each in variables)
    path_arguments = "{" + ", ".join(f"{each!r}: str({each})" for each in variables) + "}"
    kind = f"{_class_name(name)}Arguments"
    summary = operation["summary"].rstrip(".").replace('"', "'")
    return (
        f"\n    def {name}(self, {parameters}**arguments: Unpack[{kind}]) -> {_answer_type(operation)}:\n"
        f'        """{summary}."""\n'
        f"        return self._call({name!r}, {path_arguments}, arguments)\n"
    )


def _answer_type(operation: Mapping[str, Any]) -> str:
    """JSON where an operation answers in several formats; None if it answers without a body."""
    [answer] = [each for status, each in operation["responses"].items() if status.startswith("2")]
    content = answer.get("content", {})
    return _type(content["application/json"]["schema"]) if "application/json" in content else "None"


def _sent_schema(operation: Mapping[str, Any]) -> Any:
    return operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")


def _sent_names(operation: Mapping[str, Any]) -> list[str]:
    schema = _sent_schema(operation) or {}
    return [each["$ref"].rpartition("/")[2] for each in schema.get("anyOf", [schema] if schema else [])]


def _argument(parameter: str) -> str:
    """`amount[gte]` → `amount_gte`, and `from` → `from_`, because that is a word of Python."""
    name = re.sub(r"\[(\w+)\]", r"_\1", parameter)
    return f"{name}_" if keyword.iskeyword(name) else name


def _class_name(operation_id: str) -> str:
    return "".join(word.capitalize() for word in operation_id.split("_"))


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _problems() -> str:
    text = [MADE.format("An exception for each problem code."), "from typing import Final\n\n"]
    text.append("from daybook_client.problem import Problem\n")
    names = {code: "".join(word.capitalize() for word in code.split("-")) for code in STATUS}
    for code, name in names.items():
        text.append(f'\n\nclass {name}(Problem):\n    """{ERROR_OF_CODE[code].title()}."""\n\n    CODE = {code!r}\n')
    text.append(f"\n\nPROBLEM_OF_CODE: Final = {{{', '.join(f'{name}.CODE: {name}' for name in names.values())}}}\n")
    return "".join(text)


def _client() -> str:
    text = (PACKAGE / "asyncio_client.py").read_text()
    for old, new in TO_THREADS:
        if old not in text:
            raise ValueError(f"asyncio_client.py has no {old!r} any more")
        text = text.replace(old, new)
    return re.sub(r"\b(async|await) ", "", text).replace("Async", "")


def _formatted(file: Path, text: str) -> str:
    """Removes imports that no type needs, and formats as `make check` wants it."""
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    for arguments in (["check", "--fix", "--quiet", "--select", "F401,F403,F405,I"], ["format"]):
        command = [*ruff, *arguments, "--stdin-filename", str(file), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, check=False).stdout
    return text


if __name__ == "__main__":
    for file, text in client_files().items():
        file.write_text(text)
