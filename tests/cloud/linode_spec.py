"""Linode's description of its API, which is a list of operations with their attributes, as a `Spec`.

An attribute has a dotted path and a type, so that an OpenAPI document can be made of the operations. Attributes of an
answer do not say which of their parents are lists; that is told by `LISTS`. What may be null in an answer is not told
at all: everything may.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openapi import Spec

VERSION = "/{apiVersion}"
# Parents in answers that are lists of objects: (their path; operations name no such thing).
LISTS = frozenset({"entities", "region_prices", "addons.backups.region_prices", "regions", "inbound", "outbound"})
PAGE = {"page": {"type": "integer"}, "pages": {"type": "integer"}, "results": {"type": "integer"}}
# The list of operations leaves failures out. Their form: https://techdocs.akamai.com/linode-api/reference/errors
ERROR = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "field": {"type": "string"}},
    "required": ["reason"],
}
ERRORS = {"type": "array", "items": ERROR, "minItems": 1}
FAILURE = {"type": "object", "properties": {"errors": ERRORS}, "required": ["errors"]}
FAILURES = {"default": {"content": {"application/json": {"schema": FAILURE}}}}


class LinodeSpec(Spec):
    """Knows as well by which attributes a list can be filtered."""

    def __init__(self, operations: dict[str, Any]) -> None:
        paths: dict[str, Any] = {}
        self._filterable: dict[str, set[str]] = {}
        for group in operations.values():
            if not isinstance(group, dict):
                continue
            for operation in group.values():
                path = operation["url_path"].removeprefix(VERSION)
                paths.setdefault(path, {})[operation["method"]] = _operation(operation)
                if operation["method"] == "get":
                    attributes = operation["response_model"]["attrs"]
                    self._filterable[path] = {a["name"] for a in attributes if a["filterable"]}
        super().__init__({"paths": paths}, failures=FAILURES)

    @classmethod
    def load_operations(cls, path: Path) -> LinodeSpec:
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def filter(self, template: str, asked: Any) -> list[str]:
        """What is wrong with an X-Filter header, taken apart already."""
        wrong = []
        for name, value in asked.items() if isinstance(asked, dict) else ():
            if name in ("+and", "+or"):
                for part in value:
                    wrong += self.filter(template, part)
            elif not name.startswith("+") and name not in self._filterable.get(template, ()):
                wrong.append(f"X-Filter: {name!r} cannot be filtered by")
        return wrong


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"responses": {}, "parameters": []}
    model = operation["response_model"]
    answer = _tree([(a["name"], a["datatype"], a.get("item_type")) for a in model["attrs"]], nullable=True)
    if model["is_paginated"]:
        made["parameters"] = [
            {"in": "query", "name": "page", "schema": {"type": "integer", "minimum": 1}},
            {"in": "query", "name": "page_size", "schema": {"type": "integer", "minimum": 25, "maximum": 500}},
        ]
        data = {"type": "array", "items": answer}
        answer = {"type": "object", "properties": {"data": data, **PAGE}, "required": ["data", *PAGE]}
    answer.setdefault("additionalProperties", False)
    made["responses"]["200"] = {"content": {"application/json": {"schema": answer}}}
    asked = operation["request"]
    if operation["method"] in ("post", "put") and asked is not None:
        attributes = [(a["path"], a["datatype"], a.get("item_type")) for a in asked["attrs"]]
        schema = _tree(attributes, nullable=False)
        for a in asked["attrs"]:
            if a.get("nullable") and "." not in a["path"]:
                schema["properties"][a["path"]] = {"anyOf": [schema["properties"][a["path"]], {"type": "null"}]}
        schema["required"] = asked.get("required") or []
        made["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return made


def _tree(attributes: list[tuple[str, str, str | None]], *, nullable: bool) -> dict[str, Any]:
    root: dict[str, Any] = {"type": "object", "properties": {}}
    # Parents first: a parent that is an attribute itself is said to be JSON, of any form.
    for path, kind, item in sorted(attributes):
        node = root
        parts = path.split(".")
        for n, part in enumerate(parts[:-1]):
            below = node.setdefault("properties", {}).setdefault(part, {"type": "object", "properties": {}})
            if below.get("x-any"):
                break
            whole = ".".join(parts[: n + 1])
            if nullable and any(whole == one or whole.endswith("." + one) for one in LISTS) and "items" not in below:
                below.clear()
                below.update(type=["array", "null"], items={"type": "object", "properties": {}})
            elif nullable and below.get("type") == "object":
                below["type"] = ["object", "null"]
            node = below["items"] if "items" in below else below
        else:
            node.setdefault("properties", {}).setdefault(parts[-1], _leaf(kind, item, nullable))
    return root


def _leaf(kind: str, item: str | None, nullable: bool) -> dict[str, Any]:
    if kind == "object":
        return {"x-any": True}
    leaf: dict[str, Any] = {"type": [kind, "null"] if nullable else kind}
    if kind == "array" and item in ("string", "integer", "number", "boolean"):
        leaf["items"] = {"type": item}
    return leaf
