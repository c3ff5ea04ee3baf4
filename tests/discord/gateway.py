"""Discord's gateway: WebSocket sessions that can be resumed, and the faults that real ones have.

A session outlives its connection. What happens while nobody is connected is kept for the next RESUME, as Discord does.
Facts: https://discord.com/developers/docs/events/gateway
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from types import SimpleNamespace
from typing import Any

import discord
from aiohttp import WSMsgType, web
from simcord.backend import serializers
from simcord.gateway import FakeGateway
from simcord.intents import PRIVILEGED_INTENTS

from world import World

HEARTBEAT_MS = 41_250
# So often a bot may IDENTIFY in a day.
SESSION_STARTS = 1_000
DAY_S = 86_400.0
# What a detached session keeps for its RESUME.
MAX_KEPT_EVENTS = 5_000

DISPATCH, HEARTBEAT, IDENTIFY, PRESENCE, VOICE, RESUME = 0, 1, 2, 3, 4, 6
RECONNECT, INVALID_SESSION, HELLO, ACK = 7, 9, 10, 11

# Fields that Discord always sends and simcord omits; strict clients refuse the event without them.
GUILD_FIELDS: dict[str, Any] = {
    "nsfw_level": 0,
    "nsfw": False,
    "widget_enabled": False,
    "max_video_channel_users": 25,
    "max_stage_video_channel_users": 50,
    "hub_type": None,
    "home_header": None,
    "safety_alerts_channel_id": None,
    "region": "deprecated",
}


class SessionStarts:
    """How often the bot may still IDENTIFY. Who does it once more loses all sessions and the token."""

    def __init__(self) -> None:
        self.set(SESSION_STARTS, DAY_S)

    def set(self, remaining: int, reset_after_s: float) -> None:
        self.remaining = remaining
        self.resets_at = time.monotonic() + reset_after_s

    def take(self) -> bool:
        self.describe()
        self.remaining -= 1
        return self.remaining >= 0

    def describe(self) -> dict[str, int]:
        if time.monotonic() >= self.resets_at:
            self.set(SESSION_STARTS, DAY_S)
        return {
            "total": SESSION_STARTS,
            "remaining": max(0, self.remaining),
            "reset_after": math.ceil((self.resets_at - time.monotonic()) * 1000),
            "max_concurrency": 1,
        }


class Session:
    """What the bot is subscribed to, and what it has been sent."""

    def __init__(self, gateway: Gateway, intents: int) -> None:
        self.id = secrets.token_hex(16)
        self.link: Link | None = None
        self.gateway = gateway
        self.intents = discord.Intents._from_value(intents)
        self.seq = 0
        self.kept: list[dict[str, Any]] = []
        # simcord's own gateway knows which events an intent admits and what it blanks. It hands what is left to a
        # parser, by the event's name; ours sends it.
        self.feed = FakeGateway(gateway.world.backend, SimpleNamespace(intents=self.intents, parsers=_Parsers(self)))

    def send(self, event: str, payload: Any) -> None:
        self.seq += 1
        frame = {"op": DISPATCH, "t": event, "s": self.seq, "d": payload}
        self.kept.append(frame)
        del self.kept[:-MAX_KEPT_EVENTS]
        if self.link is not None:
            self.link.send(frame)


class _Parsers:
    def __init__(self, session: Session) -> None:
        self._session = session

    def __getitem__(self, event: str) -> Any:
        return lambda payload: self._session.send(event, self._session.gateway.complete(event, payload))

    get = __getitem__


class Link:
    """One WebSocket connection."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        self.socket = socket
        self.transport = transport
        self.session: Session | None = None
        self.closed_by_us = False
        self._out: asyncio.Queue[dict[str, Any] | str | int] = asyncio.Queue()

    def send(self, frame: dict[str, Any] | str) -> None:
        self._out.put_nowait(frame)

    def close_later(self, code: int) -> None:
        """When all that was said before has been sent."""
        self._out.put_nowait(code)

    async def write(self) -> None:
        while True:
            frame = await self._out.get()
            try:
                if isinstance(frame, int):
                    return await self.close(frame)
                await self.socket.send_str(frame if isinstance(frame, str) else json.dumps(frame))
            except ConnectionError:
                return

    async def close(self, code: int) -> None:
        self.closed_by_us = True
        await self.socket.close(code=code)

    def abort(self) -> None:
        """Cut the cable: no close frame, no goodbye."""
        if self.transport is not None:
            self.transport.abort()


class Gateway:
    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions: dict[str, Session] = {}
        self.links: set[Link] = set()
        self.stats = {"connections": 0, "identifies": 0, "resumes": 0, "resumes_refused": 0, "heartbeats": 0}
        self.presence: Any = None
        self.approved: frozenset[str] = frozenset()
        # Faults, set by a test.
        self.heartbeat_ms = HEARTBEAT_MS
        self.withhold_acks = False
        self.silent = False
        self.starts = SessionStarts()
        self.close_after_ready: int | None = None
        self.refuse_resumes = 0
        self.refuse_connections = False
        world.backend.subscribers.append(self._on_event)

    # ------------------------------------------------------------------ events

    def _on_event(self, event: str, payload: Any) -> None:
        for session in list(self.sessions.values()):
            session.feed.feed(event, payload)

    def complete(self, event: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Add what Discord sends and simcord does not."""
        if event in ("GUILD_CREATE", "GUILD_UPDATE"):
            for name, value in GUILD_FIELDS.items():
                payload.setdefault(name, value)
            for channel in payload.get("channels", []):
                channel.setdefault("nsfw", False)
                channel.setdefault("flags", 0)
        elif event == "INTERACTION_CREATE":
            user = payload.get("user") or payload["member"]["user"]
            payload["locale"] = self.world.locales.get(int(user["id"]), "en-US")
            if guild_id := payload.get("guild_id"):
                payload["authorizing_integration_owners"] = {"0": guild_id}
                payload["guild"] = {"id": guild_id, "locale": payload["guild_locale"], "features": []}
        return payload

    def connected(self) -> int:
        return sum(1 for s in self.sessions.values() if s.link is not None)

    def describe(self) -> dict[str, Any]:
        return {**self.stats, "sessions": len(self.sessions), "connected": self.connected(), "presence": self.presence}

    # ------------------------------------------------------------------ faults

    async def close_all(self, code: int) -> None:
        if code in (4004, 4007, 4009, 1000, 1001):
            self._forget_all()
        for link in list(self.links):
            await link.close(code)

    def abort_all(self) -> None:
        for link in list(self.links):
            link.abort()

    def dispatch_all(self, event: str, payload: Any) -> None:
        """Something that the stand-in itself would never send."""
        for session in self.sessions.values():
            session.send(event, payload)

    def send_all(self, frame: dict[str, Any] | str) -> None:
        for link in list(self.links):
            link.send(frame)

    def ask_to_reconnect(self) -> None:
        self.send_all({"op": RECONNECT, "d": None})

    def invalidate(self, *, resumable: bool) -> None:
        if not resumable:
            self._forget_all()
        self.send_all({"op": INVALID_SESSION, "d": resumable})

    def _forget_all(self) -> None:
        for session in list(self.sessions.values()):
            self._forget(session)

    def _forget(self, session: Session) -> None:
        if session.link is not None:
            session.link.session = None
        del self.sessions[session.id]

    # ------------------------------------------------------------- connections

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refuse_connections:
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse(max_msg_size=1 << 20)
        await socket.prepare(request)
        link = Link(socket, request.transport)
        self.links.add(link)
        self.stats["connections"] += 1
        writer = asyncio.create_task(link.write())
        link.send({"op": HELLO, "d": {"heartbeat_interval": self.heartbeat_ms, "_trace": []}})
        try:
            async for message in socket:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                code = await self._receive(link, message.data)
                if code is not None:
                    await link.close(code)
        finally:
            writer.cancel()
            self.links.discard(link)
            session = link.session
            if session is not None and session.link is link:
                session.link = None
                # A client that says goodbye with these gives its session up.
                if socket.close_code in (1000, 1001) and not link.closed_by_us:
                    self.sessions.pop(session.id, None)
            self.world.touch()
        return socket

    async def _receive(self, link: Link, data: str | bytes) -> int | None:
        """Handle one frame; returns the code to close with, if any."""
        try:
            frame = json.loads(data)
            op, body = frame["op"], frame.get("d")
        except (ValueError, KeyError, TypeError):
            return 4002
        if op == HEARTBEAT:
            self.stats["heartbeats"] += 1
            if not self.withhold_acks:
                link.send({"op": ACK, "d": None})
            return None
        if self.silent and op in (IDENTIFY, RESUME):
            return None
        if op == IDENTIFY:
            return self._identify(link, body)
        if op == RESUME:
            return await self._resume(link, body)
        if link.session is None:
            return 4003
        if op == PRESENCE:
            self.presence = body
            self.world.touch()
            return None
        if op == VOICE:
            return None
        self.world.violation("gateway", f"the stand-in does not know opcode {op}")
        return 4001

    def _identify(self, link: Link, body: dict[str, Any]) -> int | None:
        if link.session is not None:
            return 4005
        self.stats["identifies"] += 1
        if not self.starts.take():
            self.world.violation("gateway", "one IDENTIFY too many: Discord would have reset the token")
            return 4004
        if body.get("token", "").removeprefix("Bot ") != self.world.token:
            return 4004
        session = Session(self, int(body["intents"]))
        if any(getattr(session.intents, name) for name in PRIVILEGED_INTENTS if name not in self.approved):
            return 4014
        backend = self.world.backend
        self.sessions[session.id] = session
        self._attach(link, session)
        session.send(
            "READY",
            {
                "v": 10,
                "user": dict(serializers.user_payload(backend.bot_user)),
                "guilds": [{"id": str(guild), "unavailable": True} for guild in backend.guilds],
                "session_id": session.id,
                "resume_gateway_url": str(self.url),
                "shard": body.get("shard") or [0, 1],
                "application": {"id": str(backend.application_id), "flags": 0},
                "private_channels": [],
                "presences": [],
                "relationships": [],
                "_trace": [],
            },
        )
        for guild in list(backend.guilds.values()):
            session.feed.feed("GUILD_CREATE", serializers.guild_create_payload(backend, guild))
        if self.close_after_ready is not None:
            self._forget(session)
            link.close_later(self.close_after_ready)
        self.world.touch()
        return None

    async def _resume(self, link: Link, body: dict[str, Any]) -> int | None:
        if link.session is not None:
            return 4005
        if body.get("token", "").removeprefix("Bot ") != self.world.token:
            return 4004
        session = self.sessions.get(body.get("session_id", ""))
        if session is None or self.refuse_resumes > 0:
            self.refuse_resumes = max(0, self.refuse_resumes - 1)
            self.stats["resumes_refused"] += 1
            if session is not None:
                del self.sessions[session.id]
            link.send({"op": INVALID_SESSION, "d": False})
            self.world.touch()
            return None
        seq = int(body.get("seq") or 0)
        if seq > session.seq:
            return 4007
        if session.link is not None:
            session.link.session = None
            session.link.abort()
        for frame in session.kept:
            if frame["s"] > seq:
                link.send(frame)
        self._attach(link, session)
        self.stats["resumes"] += 1
        session.send("RESUMED", {"_trace": []})
        self.world.touch()
        return None

    def _attach(self, link: Link, session: Session) -> None:
        link.session = session
        session.link = link

    url = ""  # set when the port is known
