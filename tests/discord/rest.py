"""Discord's REST API in front of simcord's route table, with what a network adds: rate limits, failures, outages.

Every request is recorded, with its answer. What simcord is stricter about than Discord is smoothed (`_smooth`); what
simcord does not know becomes a violation, so that no test passes because the stand-in looked away.
"""

from __future__ import annotations

import asyncio
import fnmatch
import io
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from simcord.backend.errors import BackendError
from simcord.enums import CallbackType
from simcord.http import client as _registers_every_route  # noqa: F401
from simcord.http.router import RequestContext, RouteNotImplemented, UnsupportedField, dispatch, route

import openapi
from gateway import GUILD_FIELDS, Gateway
from world import World

PREFIX = "/api/v10"
# What the headers promise where a test has set no limit of its own. Nothing enforces it.
UNLIMITED = 1000
MAX_TEXT_KEPT = 20_000


@dataclass
class Fault:
    """Something that happens to the next requests of a route."""

    do: str  # rate_limit, error, reset, lost_answer, hang
    method: str = "*"
    path: str = "*"
    times: int | None = 1
    retry_after: float = 1.0
    scope: str = "user"
    status: int = 500
    code: int = 0
    message: str = "500: Internal Server Error"
    seconds: float = 30.0

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("*", method) and fnmatch.fnmatch(path, self.path)


@dataclass
class Limit:
    """A bucket that is enforced: so many requests of a route in so many seconds, for each channel of its own."""

    path: str
    limit: int
    per_s: float
    method: str = "*"


@dataclass
class Upload:
    """A file of a request, in the shape that simcord reads."""

    filename: str
    data: bytes
    description: str | None = None

    @property
    def fp(self) -> io.BytesIO:
        return io.BytesIO(self.data)


class Rest:
    def __init__(self, world: World, gateway: Gateway, spec: openapi.Spec | None) -> None:
        self.world = world
        self.gateway = gateway
        self.spec = spec
        self.record: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        self.limits: list[Limit] = []
        self.outage: str | None = None  # None, "reset" or "unavailable"
        self.posted_once: dict[tuple[str, Any], Any] = {}
        self._spent: dict[str, list[float]] = {}
        self._started = time.monotonic()

    # ------------------------------------------------------------------ transport

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.outage == "reset":
            return _cut(request)
        if self.outage == "unavailable":
            return web.Response(status=503, text="upstream connect error")
        method, path = request.method, request.path.removeprefix(PREFIX)
        body, uploads, wrong = await _read(request)
        entry: dict[str, Any] = {
            "n": len(self.record) + 1,
            "at_s": round(time.monotonic() - self._started, 3),
            "method": method,
            "path": path,
            "query": dict(request.query),
            "body": body,
            "files": [_file(upload) for upload in uploads],
            "status": None,
            "answer": None,
        }
        self.record.append(entry)
        if wrong:
            self._violation(entry, wrong)
        try:
            return await self._answer(request, entry, body, uploads)
        finally:
            self.world.touch()

    async def _answer(
        self, request: web.Request, entry: dict[str, Any], body: Any, uploads: list[Upload]
    ) -> web.StreamResponse:
        method, path = entry["method"], entry["path"]
        fault = self._fault(method, path)
        if fault is not None and fault.do == "hang":
            entry["status"] = "hang"
            await asyncio.sleep(fault.seconds)
        if fault is not None and fault.do == "reset":
            entry["status"] = "reset"
            return _cut(request)
        if fault is not None and fault.do == "error":
            return self._reply(entry, fault.status, {"code": fault.code, "message": fault.message}, {})
        if fault is not None and fault.do == "rate_limit":
            return self._limited(entry, fault.retry_after, fault.scope)
        # Discord turns a wrong token away before it looks at anything else; interactions carry their own.
        # GET /gateway asks nobody who they are (and serenity calls the real gateway when it fails).
        is_open = path.startswith(("/interactions/", "/webhooks/")) or path == "/gateway"
        if not is_open and request.headers.get("Authorization") != f"Bot {self.world.token}":
            return self._reply(entry, 401, {"message": "401: Unauthorized", "code": 0}, {})
        headers, wait = self._bucket(method, path)
        if wait is not None:
            return self._limited(entry, wait, "user", headers)
        self._check(entry, body, has_uploads=bool(uploads))
        status, answer = self._dispatch(request, entry, body, uploads)
        if fault is not None and fault.do == "lost_answer":
            # It happened, but the bot will not learn of it.
            entry["status"] = "lost_answer"
            return _cut(request)
        return self._reply(entry, status, answer, headers)

    def _reply(self, entry: dict[str, Any], status: int, answer: Any, headers: dict[str, str]) -> web.Response:
        entry["status"] = status
        if status >= 400:
            entry["answer"] = answer
        if status == 204:
            return web.Response(status=204, headers=headers)
        return web.json_response(answer, status=status, headers=headers)

    def _limited(
        self, entry: dict[str, Any], wait: float, scope: str, headers: dict[str, str] | None = None
    ) -> web.Response:
        everything = scope == "global"
        headers = {**(headers or {}), "Retry-After": f"{wait:.3f}", "X-RateLimit-Scope": scope}
        if everything:
            headers["X-RateLimit-Global"] = "true"
        answer = {"message": "You are being rate limited.", "retry_after": wait, "global": everything, "code": 0}
        return self._reply(entry, 429, answer, headers)

    # ---------------------------------------------------------------------- rules

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.matches(method, path):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                return fault
        return None

    def _bucket(self, method: str, path: str) -> tuple[dict[str, str], float | None]:
        """The rate-limit headers of a request, and how long to wait if there is no room for it."""
        rule = next((r for r in self.limits if Fault("", r.method, r.path).matches(method, path)), None)
        limit, per_s = (rule.limit, rule.per_s) if rule else (UNLIMITED, 1.0)
        # One bucket per method and major parameter: the messages of one channel share theirs.
        key = f"{method} " + re.sub(r"(/(?:channels|guilds|webhooks|interactions)/[^/]+)|/\d{5,}", r"\1", path)
        # Its time begins with the first request, and at its end all of it is there again.
        now = time.monotonic()
        spent = self._spent.get(key, [])
        if spent and now - spent[0] >= per_s:
            spent = []
        reset_after = per_s - (now - spent[0]) if spent else per_s
        full = rule is not None and len(spent) >= limit
        if not full:
            spent.append(now)
        self._spent[key] = spent
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(0, limit - len(spent))),
            "X-RateLimit-Reset": f"{time.time() + reset_after:.3f}",
            "X-RateLimit-Reset-After": f"{reset_after:.3f}",
            "X-RateLimit-Bucket": f"{abs(hash(key)):016x}",
        }
        return headers, (round(max(reset_after, 0.001), 3) if full else None)

    def _check(self, entry: dict[str, Any], body: Any, *, has_uploads: bool) -> None:
        method, path = entry["method"], entry["path"]
        if self.spec is not None and path not in ("/gateway", "/gateway/bot"):
            for what in self.spec.check(method, path, entry["query"], body if body is not None or has_uploads else None):
                self._violation(entry, what)
        if re.fullmatch(r"/applications/\d+(/guilds/\d+)?/commands", path) and method in ("PUT", "POST"):
            for what in openapi.check_commands(body):
                self._violation(entry, what)

    def _violation(self, entry: dict[str, Any], what: str) -> None:
        self.world.violation(f"{entry['method']} {entry['path']}", what, request=entry["n"])

    # ------------------------------------------------------------------- dispatch

    def _dispatch(
        self, request: web.Request, entry: dict[str, Any], body: Any, uploads: list[Upload]
    ) -> tuple[int, Any]:
        method, path = entry["method"], entry["path"]
        if method == "GET" and path == "/gateway":
            return 200, {"url": self.gateway.url}
        if method == "GET" and path == "/gateway/bot":
            start = self.gateway.starts.describe()
            return 200, {"url": self.gateway.url, "shards": 1, "session_start_limit": start}
        once = (path, body["nonce"]) if _posts_once(method, path, body) else None
        if once in self.posted_once:
            # With `enforce_nonce` a message that was made a moment ago is answered again instead of doubled.
            return 200, self.posted_once[once]
        try:
            self._refuse_dead_token(path)
            answer = dispatch(
                self.world.backend,
                method,
                _alias(path),
                json=_smooth(method, path, body),
                params=dict(request.query),
                files=uploads,
                reason=unquote(request.headers["X-Audit-Log-Reason"])
                if "X-Audit-Log-Reason" in request.headers
                else None,
            )
        except (RouteNotImplemented, UnsupportedField) as gap:
            self._violation(entry, f"the stand-in cannot do this: {gap}")
            return 501, {"code": 0, "message": str(gap)}
        except BackendError as refused:
            return refused.status, refused.to_json()
        except Exception as broken:
            # Discord would say 400 to most of these. A test must not mistake our fault for its bot's.
            self._violation(entry, f"the stand-in failed: {broken!r}")
            return 500, {"code": 0, "message": "500: Internal Server Error"}
        if path.startswith("/interactions/") and request.query.get("with_response") not in ("true", "1", "True"):
            return 204, None
        if answer is None:
            return 204, None
        if once is not None:
            self.posted_once[once] = answer
        backend = self.world.backend
        return 200, _complete(path, answer, lambda guild: backend.compute_permissions(guild, backend.bot_user.id))

    def _refuse_dead_token(self, path: str) -> None:
        """After 15 minutes Discord calls an interaction's token invalid; simcord says that there is no such webhook."""
        parts = path.strip("/").split("/")
        if parts[0] != "webhooks" or len(parts) < 3:
            return
        backend = self.world.backend
        record = backend.interactions.get(backend.interaction_tokens.get(parts[2], 0))
        if record is not None and record.expires_at is not None and backend.now_iso() >= record.expires_at:
            raise BackendError(401, 50027, "Invalid Webhook Token")


def _cut(request: web.Request) -> web.Response:
    """End the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


async def _read(request: web.Request) -> tuple[Any, list[Upload], str | None]:
    """The JSON body and the files of a request, and what is wrong with its form."""
    kind = request.content_type
    if not kind.startswith("multipart/"):
        raw = await request.read()
        if not raw:
            return None, [], None
        try:
            return json.loads(raw), [], None
        except ValueError:
            return None, [], f"a body that is not JSON ({kind})"
    body: Any = None
    uploads: list[Upload] = []
    reader = await request.multipart()
    async for part in reader:
        data = await part.read(decode=True)
        if part.name == "payload_json":
            try:
                body = json.loads(data)
            except ValueError:
                return None, [], "a payload_json that is not JSON"
        elif part.filename is not None and re.fullmatch(r"files\[\d+\]", part.name or ""):
            uploads.append(Upload(part.filename, bytes(data)))
        else:
            return body, uploads, f"a part called {part.name!r}"
    described = body.get("data", body) if isinstance(body, dict) else {}
    for item in (described or {}).get("attachments") or []:
        index = int(item["id"]) if str(item.get("id", "")).isdecimal() else -1
        if 0 <= index < len(uploads):
            uploads[index].description = item.get("description")
    return body, uploads, None


def _file(upload: Upload) -> dict[str, Any]:
    text = upload.data.decode("utf-8", errors="replace")[:MAX_TEXT_KEPT]
    return {"name": upload.filename, "size": len(upload.data), "text": text}


# --------------------------------------------------------------------- what simcord is stricter about than Discord


def _alias(path: str) -> str:
    if path == "/applications/@me":
        return "/oauth2/applications/@me"
    # Deprecated, and still served by Discord.
    return re.sub(r"^(/channels/\d+)/pins(/\d+)?$", r"\1/messages/pins\2", path)


def _posts_once(method: str, path: str, body: Any) -> bool:
    posts = method == "POST" and re.fullmatch(r"/channels/\d+/messages", path) is not None
    return posts and isinstance(body, dict) and body.get("enforce_nonce") is True and body.get("nonce") is not None


def _smooth(method: str, path: str, body: Any) -> Any:
    if body is not None and path.startswith("/applications/") and "/commands" in path:
        return [_smooth_command(c) for c in body] if isinstance(body, list) else _smooth_command(body)
    if not isinstance(body, dict):
        return body
    if path.startswith("/interactions/") and isinstance(body.get("data"), dict):
        is_edit = body.get("type") == CallbackType.UPDATE_MESSAGE
        return {**body, "data": _smooth_message(body["data"], is_edit=is_edit)}
    if "/messages" in path or path.startswith("/webhooks/"):
        # The first follow-up of a deferred answer is an edit of "thinking…", for simcord too.
        return _smooth_message(body, is_edit=method == "PATCH" or path.startswith("/webhooks/"))
    return body


def _smooth_command(command: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in _without_nulls(command).items() if k not in ("version", "id", "application_id")}


def _smooth_message(message: dict[str, Any], *, is_edit: bool) -> dict[str, Any]:
    message = dict(message)
    if message.get("components"):
        message["components"] = _without_nulls(message["components"])
    if isinstance(message.get("allowed_mentions"), dict):
        mentions = _without_nulls(message["allowed_mentions"])
        for kind in ("users", "roles"):
            if kind in mentions.get("parse", []) and not mentions.get(kind, []):
                mentions.pop(kind, None)
        message["allowed_mentions"] = mentions
    if is_edit:
        for name in ("nonce", "enforce_nonce", "sticker_ids"):
            message.pop(name, None)
    return message


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value


def _complete(path: str, answer: Any, own_permissions: Callable[[int], int]) -> Any:
    """Fields of an answer that libraries insist on and simcord omits."""
    if "/commands" in path:
        for command in answer if isinstance(answer, list) else [answer]:
            command.setdefault("version", command["id"])
            command.setdefault("nsfw", False)
    if re.fullmatch(r"/guilds/\d+", path):
        return {**GUILD_FIELDS, **answer}
    if path == "/users/@me/guilds":
        return [{**guild, "owner": False, "permissions": str(own_permissions(int(guild["id"])))} for guild in answer]
    return answer


# ------------------------------------------------------------------------------- routes that simcord does not have


def _upsert(ctx: RequestContext, guild_id: int | None) -> dict[str, Any]:
    backend = ctx.backend
    wanted = ctx.body()
    others = [
        {k: v for k, v in command.items() if k not in ("id", "application_id", "guild_id", "version", "nsfw")}
        for (name, _), command in backend.commands.get(guild_id, {}).items()
        if name != wanted["name"]
    ]
    wanted = {k: v for k, v in wanted.items() if not (k == "nsfw" and v is False)}
    backend.register_commands(guild_id, [*others, wanted])
    return backend.find_command(wanted["name"], guild_id, wanted.get("type", 1)) or {}


def _delete(ctx: RequestContext, guild_id: int | None) -> None:
    commands = ctx.backend.commands.get(guild_id, {})
    for key, command in commands.items():
        if command["id"] == ctx.args["command_id"]:
            del commands[key]
            return
    raise BackendError(404, 10063, "Unknown application command")


@route("POST", "/applications/{application_id}/commands")
def create_global_command(ctx: RequestContext) -> Any:
    return _upsert(ctx, None)


@route("POST", "/applications/{application_id}/guilds/{guild_id}/commands")
def create_guild_command(ctx: RequestContext) -> Any:
    return _upsert(ctx, ctx.int_arg("guild_id"))


@route("DELETE", "/applications/{application_id}/commands/{command_id}")
def delete_global_command(ctx: RequestContext) -> Any:
    _delete(ctx, None)


@route("DELETE", "/applications/{application_id}/guilds/{guild_id}/commands/{command_id}")
def delete_guild_command(ctx: RequestContext) -> Any:
    _delete(ctx, ctx.int_arg("guild_id"))


