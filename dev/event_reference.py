"""Makes the page about the types of events, and describes them in JSON Schema and AsyncAPI."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec

from dev.api_reference import Schema, types_page
from projector.webhooks.delivery import PING_TYPE
from shared.log.event_struct import EventStruct
from shared.privacy.encryption import personal_fields

JSON_SCHEMA: Final = "event-types.schema.json"
ASYNCAPI: Final = "events.asyncapi.json"
ABOUT: Final = f"""The `data` of each event, as `GET /v1/events` answers it. Members with their default value are left out.
[Events](../docs/events.md) shows how to follow them, and [webhooks](../docs/webhooks.md) how to have them sent.

[JSON Schema]({JSON_SCHEMA}) of `data` · [AsyncAPI document]({ASYNCAPI}) of the stream of events and of webhooks"""
ENCRYPTED: Final = {
    "description": "A personal text in the form in which the log has it, encrypted with a key of the person.",
    "type": "object",
    "properties": {"sealed": {"type": "string", "contentEncoding": "base64"}},
    "required": ["sealed"],
    "additionalProperties": False,
}
DELIVERY_HEADERS: Final = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("webhook-id", "webhook-timestamp", "webhook-signature")},
    "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
}

Events = Collection[type[EventStruct]]


def event_reference(events: Events, envelope: Schema, version: str) -> dict[str, str]:
    """Returns the page, the JSON Schema and the AsyncAPI document, by their paths in the site.

    `envelope` is the schema of an event as the query API answers it, and `version` the version of that API.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": _types(events, "#/$defs/")}
    return {
        "reference/event-types.md": types_page("Event types", ABOUT, _types(events, "#/$defs/"), "event-types.md"),
        f"reference/{JSON_SCHEMA}": json.dumps(schema, indent=1),
        f"reference/{ASYNCAPI}": json.dumps(_asyncapi(events, envelope, version), indent=1),
    }


def _types(events: Events, references: str) -> dict[str, dict[str, Any]]:
    """The schema of the data of each event and of the types in it, by name, in the form in which the log has them."""
    _, types = msgspec.json.schema_components(events, ref_template=f"{references}{{name}}")
    for event in events:
        for name in personal_fields(event):
            types[event.__name__]["properties"][name] = {"$ref": f"{references}Encrypted"}
    return {**types, "Encrypted": ENCRYPTED}


def _asyncapi(events: Events, envelope: Schema, version: str) -> Schema:
    sent = {event.__name__: _message(event.__name__, _recorded(event, envelope)) for event in events}
    delivered = {f"{name}Delivery": _delivery(name, {"$ref": f"#/components/messages/{name}/payload"}) for name in sent}
    delivered[PING_TYPE] = _delivery(PING_TYPE, {"type": "object", "maxProperties": 0})
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Daybook events", "version": version, "description": "Events as they are recorded."},
        "channels": {
            "events": _channel("/v1/events/stream", "Server-sent events of the query API.", sent),
            "deliveries": _channel(None, "The URL of a webhook. Each event is sent at least once, in order.", delivered),
        },
        "operations": {
            "sendEvents": {"action": "send", "channel": {"$ref": "#/channels/events"}},
            "deliverEvents": {
                "action": "send",
                "channel": {"$ref": "#/channels/deliveries"},
                "bindings": {"http": {"method": "POST"}},
            },
        },
        "components": {"messages": {**sent, **delivered}, "schemas": _types(events, "#/components/schemas/")},
    }


def _channel(address: str | None, description: str, messages: Iterable[str]) -> Schema:
    references = {name: {"$ref": f"#/components/messages/{name}"} for name in messages}
    return {"address": address, "description": description, "messages": references}


def _recorded(event: type[EventStruct], envelope: Schema) -> Schema:
    own = {
        "type": {"const": event.__name__},
        "schema_version": {"const": event.schema_version},
        "data": {"$ref": f"#/components/schemas/{event.__name__}"},
    }
    return {**envelope, "properties": {**envelope["properties"], **own}}


def _delivery(name: str, data: Schema) -> Schema:
    members = {
        "type": {"const": name},
        "timestamp": {"type": "string", "description": "When it was recorded or asked for: RFC 3339 in UTC, with microseconds."},
        "ledger_id": {"type": "string"},
        "data": data,
    }
    payload = {"type": "object", "properties": members, "required": [*members], "additionalProperties": False}
    return {**_message(name, payload), "headers": DELIVERY_HEADERS}


def _message(name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "contentType": "application/json", "payload": payload}
