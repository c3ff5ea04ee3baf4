"""A provider's own description of its API, ready to be asked whether a request or an answer keeps to it.

Descriptions are data that we do not carry: the environment variable SPAWNPOINT_SPECS names the folder that holds them.
Each is read when its provider is first spoken to. Read literally they let any unknown field pass, so fields that no
variant of a schema names are refused, in requests (the provider would ignore them: a misspelt `user_data` boots a host
that nobody can enter) and in answers (the client would learn to rely on what does not exist).
"""

from __future__ import annotations

import datetime
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

METHODS = ("get", "post", "put", "patch", "delete")
MAX_SENTENCE_CHARS = 300

formats = FormatChecker(formats=())


@formats.checks("date-time", raises=ValueError)
def _date_time(value: Any) -> bool:
    return not isinstance(value, str) or datetime.datetime.fromisoformat(value).tzinfo is not None


@formats.checks("ipv4", raises=ValueError)
def _ipv4(value: Any) -> bool:
    return not isinstance(value, str) or bool(ipaddress.IPv4Address(value))


class Spec:
    """One provider's description; `strip` is what its paths begin with and a client's base URL holds already. `failures`
    are responses, by status, of operations that do not say themselves what their failures look like."""

    def __init__(self, document: dict[str, Any], strip: str = "", failures: dict[str, Any] | None = None) -> None:
        _modern(document)
        self._document = document
        self._failures = failures or {}
        self._registry = Registry().with_resource("urn:spec", Resource(document, specification=DRAFT202012))
        self._operations: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        self._templates: list[list[str]] = []
        for path, item in document["paths"].items():
            template = path.removeprefix(strip)
            self._templates.append(template.strip("/").split("/"))
            for method in METHODS:
                if method in item:
                    operation = dict(item[method])
                    operation["parameters"] = [*item.get("parameters", []), *operation.get("parameters", [])]
                    self._operations[(method, _nameless(template))] = (path, operation)

    @classmethod
    def load(cls, path: Path, strip: str = "", failures: dict[str, Any] | None = None) -> Spec:
        return cls(json.loads(path.read_text(encoding="utf-8")), strip, failures)

    def request(self, method: str, path: str, query: dict[str, str], body: Any) -> list[str]:
        """Everything that is wrong with a request, in sentences."""
        found = self._find(method, path)
        if found is None:
            return [f"there is no {method.upper()} {path}"]
        written, operation = found
        wrong = []
        declared = {}
        for parameter in operation["parameters"]:
            parameter = self._deref(parameter)
            if parameter.get("in") == "query":
                declared[parameter["name"]] = parameter
        for name, value in query.items():
            if name not in declared:
                wrong.append(f"unknown query parameter {name!r}")
                continue
            schema = self._deref(declared[name].get("schema", {}))
            try:
                given = int(value) if schema.get("type") == "integer" else value
            except ValueError:
                wrong.append(f"query parameter {name!r} is no integer: {value!r}")
                continue
            if schema.get("type") not in ("array", "boolean"):
                wrong += [f"query parameter {name!r}: {text}" for text in self._against(schema, given)]
        wrong += [f"query parameter {n!r} is missing" for n, p in declared.items() if p.get("required") and n not in query]
        content = self._deref(operation.get("requestBody", {})).get("content", {})
        if "application/json" not in content:
            return wrong if body in (None, {}) else [*wrong, f"{method.upper()} {path} takes no body"]
        if body is None:
            return [*wrong, "the body is missing"] if operation["requestBody"].get("required") else wrong
        return wrong + self._against(content["application/json"].get("schema", {}), body)

    def answer(self, method: str, path: str, status: int, body: Any) -> list[str]:
        """Everything that is wrong with an answer of ours, also with a refusal. No form is no leave to say anything: what is
        described without a body has none."""
        found = self._find(method, path)
        if found is None:
            return [f"there is no {method.upper()} {path}"]
        described = [found[1].get("responses", {}), *([self._failures] if status >= 400 else [])]
        responses = [self._deref(one) for one in (_of_status(by, status) for by in described) if one is not None]
        if not responses:
            return [f"{method.upper()} {path} never answers {status}"]
        content = next((one["content"]["application/json"] for one in responses if one.get("content")), None)
        if content is None:
            return [] if body is None else [f"{method.upper()} {path} answers {status} without a body"]
        return self._against(content.get("schema", {}), body)

    def _find(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        segments = path.strip("/").split("/")
        best: tuple[int, list[str]] | None = None
        for template in self._templates:
            if len(template) != len(segments):
                continue
            if all(part.startswith("{") or part == given for part, given in zip(template, segments, strict=True)):
                literal = sum(not part.startswith("{") for part in template)
                if best is None or literal > best[0]:
                    best = (literal, template)
        return None if best is None else self._operations.get((method.lower(), _nameless("/" + "/".join(best[1]))))

    def _against(self, schema: dict[str, Any], value: Any) -> list[str]:
        root = {**schema, "$id": "urn:spec:use"} if "$ref" not in schema else schema
        local = _absolute(root)
        validator = Draft202012Validator(local, registry=self._registry, format_checker=formats)
        wrong = [_sentence(error) for error in validator.iter_errors(value)]
        return wrong or [f"{where} is unknown" for where in self._strays([schema], value, "")]

    def _strays(self, schemas: list[dict[str, Any]], value: Any, where: str) -> Iterator[str]:
        """Fields that no variant of their object's schema names."""
        flat = [part for schema in schemas for part in self._variants(schema)]
        if isinstance(value, dict):
            known: dict[str, list[dict[str, Any]]] = {}
            for part in flat:
                for name, below in part.get("properties", {}).items():
                    known.setdefault(name, []).append(below)
            if not known or any(part.get("additionalProperties") not in (None, False) for part in flat):
                return
            for name, inner in value.items():
                here = f"{where}.{name}".strip(".")
                if name in known:
                    yield from self._strays(known[name], inner, here)
                else:
                    yield here
        elif isinstance(value, list):
            items = [part["items"] for part in flat if "items" in part]
            for n, inner in enumerate(value):
                yield from self._strays(items, inner, f"{where}.{n}".strip("."))

    def _variants(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        schema = self._deref(schema)
        yield schema
        for kind in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(kind, []):
                yield from self._variants(part)

    def _deref(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            target: Any = self._document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            node = target
        return node


def _of_status(responses: dict[str, Any], status: int) -> dict[str, Any] | None:
    """The response that is described for this status, for its hundred, or for every failure."""
    keys = [str(status), f"{status // 100}xx", f"{status // 100}XX", *(["default"] if status >= 400 else [])]
    return next((responses[key] for key in keys if key in responses), None)


def _nameless(template: str) -> str:
    """Providers name the same parameter differently from path to path."""
    return "/".join("{}" if part.startswith("{") else part for part in template.strip("/").split("/"))


def _absolute(node: Any) -> Any:
    """A schema cut out of its document still points into it."""
    if isinstance(node, dict):
        return {
            key: f"urn:spec{value}" if key == "$ref" and str(value).startswith("#") else _absolute(value)
            for key, value in node.items()
            if key != "$id"
        }
    if isinstance(node, list):
        return [_absolute(one) for one in node]
    return node


def _modern(node: Any) -> None:
    """OpenAPI 3.0 writes a few things in its own way; from here on they are JSON Schema's."""
    if isinstance(node, dict):
        if node.get("nullable") is True:
            if isinstance(node.get("type"), str):
                node["type"] = [node["type"], "null"]
                if isinstance(node.get("enum"), list) and None not in node["enum"]:
                    node["enum"] = [*node["enum"], None]
            else:
                for kind in ("allOf", "oneOf", "anyOf"):
                    if isinstance(node.get(kind), list):
                        node["anyOf"] = [{kind: node.pop(kind)}, {"type": "null"}]
                        break
        for limit, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(node.get(limit), bool):
                if node.pop(limit) and bound in node:
                    node[limit] = node.pop(bound)
        for key, value in node.items():
            if key not in ("example", "examples", "default"):
                _modern(value)
    elif isinstance(node, list):
        for value in node:
            _modern(value)


def _sentence(error: ValidationError) -> str:
    """Of a union's many complaints, the one that got furthest into the value."""
    while error.context:
        error = max(error.context, key=lambda e: (len(e.absolute_path), -len(e.message)))
    where = ".".join(str(part) for part in error.absolute_path) or "body"
    return f"{where}: {error.message[:MAX_SENTENCE_CHARS]}"
