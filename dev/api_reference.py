"""Makes the pages about both APIs that the site of the documentation has besides, from the OpenAPI documents."""

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

Schema = Mapping[str, Any]

JSON_MEDIA_TYPE: Final = "application/json"
PROBLEM_MEDIA_TYPE: Final = "application/problem+json"


def api_reference(apis: Mapping[str, Schema]) -> dict[str, str]:
    """Returns for each API, by paths in the site: its operations, the types of its bodies, and its OpenAPI document."""
    pages = {}
    for name, document in apis.items():
        bodies = f"{name}-api-bodies.md"
        about = f"What [the {name} API]({name}-api.md) receives and answers."
        pages[f"reference/{name}-api.md"] = _operations_page(name, document, bodies)
        pages[f"reference/{bodies}"] = types_page(f"Bodies of the {name} API", about, document["components"]["schemas"], bodies)
        pages[f"reference/{name}-api.openapi.json"] = json.dumps(document, indent=1)
    return pages


def types_page(title: str, about: str, types: Mapping[str, Schema], page: str) -> str:
    """Returns a page that describes types. `page` is its file's name, to which types link when they name each other."""
    parts = [f"# {title}", about]
    for name, schema in sorted(types.items()):
        parts += [f"## `{name}`", inspect.cleandoc(schema.get("description", ""))]
        if schema.get("properties"):
            parts.append(_table(("member", "type", "required", "meaning"), _members(schema, page)))
        if "example" in schema:
            parts.append(_example(schema["example"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _operations_page(name: str, document: Schema, bodies: str) -> str:
    about = f"{document['info']['description'].strip()}\n\n[OpenAPI document]({name}-api.openapi.json)"
    parts = [f"# The {name} API", about]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            parts += _operation(f"{method.upper()} {path}", operation, bodies)
    return "\n\n".join(part for part in parts if part) + "\n"


def _operation(route: str, operation: Schema, bodies: str) -> Iterator[str]:
    yield f"## {operation['summary'].strip()}"
    yield f"`{route}`"
    yield operation.get("description", "")
    parameters = operation.get("parameters", ())
    if parameters:
        rows = [(f"`{each['name']}`", each["in"], _type(each["schema"], bodies), _about(each)) for each in parameters]
        yield _table(("parameter", "in", "type", "meaning"), rows)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield f"**Body**: {_type(content['schema'], bodies)}"
    for status, answer in operation["responses"].items():
        for media_type, content in answer.get("content", {}).items():
            if media_type != PROBLEM_MEDIA_TYPE:
                yield from _answer(status, media_type, content, bodies)
    problems = sorted(_problems(operation))
    if problems:
        yield "**[Problems](../docs/problems.md)**: " + ", ".join(f"`{code}`" for code in problems)


def _answer(status: str, media_type: str, content: Schema, bodies: str) -> Iterator[str]:
    """The type of an answer, or its media type if it is not JSON, and an example."""
    kind = _type(content.get("schema", {}), bodies) if media_type == JSON_MEDIA_TYPE else f"`{media_type}`"
    yield f"**{status} {HTTPStatus(int(status)).phrase}**: {kind}"
    example = content.get("example")
    if example is not None:
        yield _example(example)


def _problems(operation: Schema) -> Iterator[str]:
    for answer in operation["responses"].values():
        yield from answer.get("content", {}).get(PROBLEM_MEDIA_TYPE, {}).get("examples", ())


def _members(schema: Schema, bodies: str) -> list[tuple[str, ...]]:
    required = schema.get("required", ())
    return [
        (f"`{name}`", _type(member, bodies), "yes" if name in required else "no", _about(member))
        for name, member in schema["properties"].items()
    ]


def _type(schema: Schema, bodies: str) -> str:
    match schema:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return f"[{name}]({bodies}#{name.lower()})"
        case {"anyOf": choices} | {"oneOf": choices}:
            return " or ".join(dict.fromkeys(_type(choice, bodies) for choice in choices))
        case {"enum": values}:
            return " or ".join(f"`{value}`" for value in values)
        case {"const": value}:
            return f"`{value}`"
        case {"type": "array", "items": items}:
            return f"list of {_type(items, bodies)}"
        case {"type": str(kind), "format": str(format_)}:
            return f"{kind} ({format_})"
        case _:
            return str(schema.get("type", "any"))


def _about(schema: Schema) -> str:
    """The description of a parameter or member, or else that of one of its types."""
    inner = [schema, schema.get("schema", {}), *schema.get("anyOf", ()), *schema.get("schema", {}).get("anyOf", ())]
    return next((each["description"] for each in inner if "description" in each), "")


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(map(_row, (heads, ("---",) * len(heads), *rows)))


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _example(value: object) -> str:
    language, text = ("text", value) if isinstance(value, str) else ("json", json.dumps(value, indent=2, ensure_ascii=False))
    return f"```{language}\n{text}\n```"
