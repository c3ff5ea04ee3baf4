"""Checks what a bot sends against Discord's own description of its API, plus a few rules that the description omits.

The description is data that we do not carry: the environment variable SPAWNPOINT_SPECS names the folder that holds
discord-openapi.json. Read literally it refuses what Discord accepts and accepts what Discord refuses, so three things
are bent: integers may travel as strings (its own README says so), the `id` of an upload is an index although it is
declared as a snowflake, and objects refuse fields that they do not know.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

# https://discord.com/developers/docs/reference#locales
LOCALES = frozenset(
    "id da de en-GB en-US es-ES es-419 fr hr it lt hu nl no pl pt-BR ro fi sv-SE vi tr cs el bg ru uk hi th zh-CN ja "
    "zh-TW ko".split()
)
MAX_COMMANDS = 100  # of the kind CHAT_INPUT, global or in a guild
SUB_COMMANDS = (1, 2)

_types = Draft202012Validator.TYPE_CHECKER.redefine(
    "integer",
    lambda checker, value: Draft202012Validator.TYPE_CHECKER.is_type(value, "integer")
    or (isinstance(value, str) and re.fullmatch(r"-?\d+", value) is not None),
)
_Validator = extend(Draft202012Validator, type_checker=_types)


class Spec:
    """Discord's description, ready to be asked."""

    def __init__(self, path: Path) -> None:
        document = json.loads(path.read_text(encoding="utf-8"))
        document["components"]["schemas"]["SnowflakeType"]["type"] = ["string", "integer"]
        for name, schema in document["components"]["schemas"].items():
            _close(schema)
            # A documented field of commands that the description forgot.
            if name.startswith("ApplicationCommand") and "default_member_permissions" in schema.get("properties", {}):
                schema["properties"].setdefault("nsfw", {"type": ["boolean", "null"]})
        self._registry = Registry().with_resource("urn:discord", Resource(document, specification=DRAFT202012))
        self._paths = [
            (template.strip("/").split("/"), template, item) for template, item in document["paths"].items()
        ]
        self._validators: dict[tuple[str, str], Any] = {}

    def check(self, method: str, path: str, query: dict[str, str], body: Any) -> list[str]:
        """Everything that is wrong with a request, in sentences."""
        found = self._find(path)
        if found is None or method.lower() not in found[1]:
            return [f"Discord has no {method} {path}"]
        template, item = found
        operation = item[method.lower()]
        wrong = []
        declared = {p.get("name") for p in [*item.get("parameters", []), *operation.get("parameters", [])]}
        wrong += [f"unknown query parameter {name!r}" for name in query if name not in declared]
        content = operation.get("requestBody", {}).get("content", {})
        if body is None:
            return wrong
        if "application/json" not in content:
            return wrong if body == {} else [*wrong, f"{method} {template} takes no body"]
        if template.startswith("/applications/"):
            body = _without_empty(body)
        validator = self._validator(method.lower(), template)
        wrong += [_sentence(error) for error in validator.iter_errors(body)]
        return wrong

    def _validator(self, method: str, template: str) -> Any:
        key = (method, template)
        if key not in self._validators:
            pointer = "/".join(
                part.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
                for part in ("paths", template, method, "requestBody", "content", "application/json", "schema")
            )
            self._validators[key] = _Validator({"$ref": f"urn:discord#/{pointer}"}, registry=self._registry)
        return self._validators[key]

    def _find(self, path: str) -> tuple[str, dict[str, Any]] | None:
        segments = path.strip("/").split("/")
        best = None
        for parts, template, item in self._paths:
            if len(parts) != len(segments):
                continue
            if all(part.startswith("{") or part == given for part, given in zip(parts, segments, strict=True)):
                literal = sum(not part.startswith("{") for part in parts)
                if best is None or literal > best[0]:
                    best = (literal, template, item)
        return None if best is None else best[1:]


def check_commands(body: Any) -> list[str]:
    """Rules for commands that Discord enforces and its description does not hold."""
    commands = body if isinstance(body, list) else [body]
    wrong = []
    if len([c for c in commands if c.get("type", 1) == 1]) > MAX_COMMANDS:
        wrong.append(f"more than {MAX_COMMANDS} slash commands")
    for command in commands:
        wrong += _check_command(command, "/" + str(command.get("name")), is_slash=command.get("type", 1) == 1)
        size = _size(command)
        if size > 8000:
            wrong.append(f"/{command.get('name')}: {size} characters in all, 8000 are allowed")
    return wrong


def _check_command(node: dict[str, Any], where: str, *, is_slash: bool) -> list[str]:
    wrong = []
    name = str(node.get("name"))
    if is_slash and (name != name.lower() or not re.fullmatch(r"[-_'\w]{1,32}", name)):
        wrong.append(f"{where}: the name must be lower case, of letters, digits, - and _")
    for key in ("name_localizations", "description_localizations"):
        wrong += [f"{where}: {key} has the unknown locale {x!r}" for x in node.get(key) or {} if x not in LOCALES]
    seen_optional = False
    for option in node.get("options") or []:
        below = f"{where} {option.get('name')}"
        if option.get("type") not in SUB_COMMANDS:
            if option.get("required") and seen_optional:
                wrong.append(f"{below}: a required option after an optional one")
            seen_optional |= not option.get("required")
        wrong += _check_command(option, below, is_slash=is_slash)
    return wrong


def _size(node: dict[str, Any]) -> int:
    """Names, descriptions and values of a command and all below it, as Discord counts them."""
    own = len(str(node.get("name") or "")) + len(str(node.get("description") or ""))
    own += sum(len(str(c.get("name") or "")) + len(str(c.get("value"))) for c in node.get("choices") or [])
    return own + sum(_size(option) for option in node.get("options") or [])


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        for value in schema.values():
            _close(value)
    elif isinstance(schema, list):
        for value in schema:
            _close(value)


def _without_empty(value: Any) -> Any:
    """Libraries name every field of a command's option, whatever its type, as null, empty or `autocomplete: false`.
    Discord does not mind."""
    if isinstance(value, dict):
        nothing = (None, [], {})
        kept = {k: v for k, v in value.items() if v not in nothing and (k, v) != ("autocomplete", False)}
        return {k: _without_empty(v) for k, v in kept.items()}
    if isinstance(value, list):
        return [_without_empty(v) for v in value]
    return value


def _sentence(error: ValidationError) -> str:
    """Of a union's many complaints, one about the variant that was meant: the one whose `type` fits, or else the one
    that got furthest into the body."""
    while error.context:
        here = len(error.absolute_path)
        other = {
            e.schema_path[0]
            for e in error.context
            if e.validator in ("enum", "const", "type") and list(e.absolute_path)[here:] in (["type"], [])
        }
        meant = [e for e in error.context if e.schema_path[0] not in other] or error.context
        error = max(meant, key=lambda e: (len(e.absolute_path), -len(e.message)))
    where = ".".join(str(part) for part in error.absolute_path) or "body"
    return f"{where}: {error.message[:300]}"
