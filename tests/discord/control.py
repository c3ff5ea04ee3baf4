"""What a test says to the stand-in: build a world, be a person in it, break the network, read what happened.

JSON over HTTP on a port of its own, so that nothing here can be mistaken for Discord's API. A refusal of what no person
could do (an unknown command, a disabled button) is status 422 with a sentence; a wait that ran out is 408 with what was
there instead.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from simcord.actors import MemberActor
from simcord.backend.errors import BackendError, SetupError
from simcord.builders import ChannelHandle
from simcord.results import InteractionResult

import render
import text
from gateway import Gateway
from rest import Fault, Limit, Rest
from world import World

WAIT_S = 20.0


class Control:
    def __init__(self, world: World, rest: Rest, gateway: Gateway, info: dict[str, Any]) -> None:
        self.world = world
        self.rest = rest
        self.gateway = gateway
        self.info = info

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/", self._page)
        app.router.add_get("/channels/{channel}", self._page)
        # simcord brings fonts, so that a picture is the same on every machine.
        app.router.add_static("/fonts", render.FONTS)
        for name in (
            "info world join deny forget_commands slash autocomplete click select submit_modal say delete delete_channel messages "
            "text answer wait clock fault limit outage gateway state requests violations"
        ).split():
            app.router.add_post(f"/{name}", self._endpoint(getattr(self, f"_{name}")))
        return app

    def _endpoint(self, handle: Callable[[dict[str, Any]], Awaitable[Any]]) -> Any:
        async def endpoint(request: web.Request) -> web.Response:
            asked = await request.json() if request.can_read_body else {}
            try:
                return web.json_response(await handle(asked))
            except TimeoutError as late:
                return web.json_response({"error": str(late)}, status=408)
            except (SetupError, BackendError, KeyError, ValueError, re.error) as refused:
                notes = " ".join(getattr(refused, "__notes__", []))
                missing = f"missing or unknown {refused}" if isinstance(refused, KeyError) else str(refused)
                return web.json_response({"error": f"{missing} {notes}".strip()}, status=422)

        return endpoint

    # -------------------------------------------------------------------- the world

    async def _info(self, _: dict[str, Any]) -> Any:
        return self.info

    async def _world(self, asked: dict[str, Any]) -> Any:
        built = self.world.build(asked)
        self.gateway.approved = frozenset(asked.get("approved_intents", self.gateway.approved))
        return built

    async def _join(self, asked: dict[str, Any]) -> Any:
        return {"user": str(self.world.join(self.world.guild, asked).id)}

    async def _deny(self, asked: dict[str, Any]) -> Any:
        channel = self.world.channel(asked["channel"])
        who = asked.get("user")
        user_id = self.world.member(who, self._guild(channel)).id if who else self.world.backend.bot_user.id
        self.world.deny(channel, user_id, asked["permissions"])
        return {}

    async def _forget_commands(self, _: dict[str, Any]) -> Any:
        """What a kick does, also to a bot that is invited again while it does not run."""
        self.world.backend.commands.pop(int(self.world.guild.id), None)
        return {}

    # ---------------------------------------------------------------------- people

    def _guild(self, channel: ChannelHandle) -> Any:
        return channel.guild or self.world.guild

    def _person(self, asked: dict[str, Any]) -> tuple[MemberActor, ChannelHandle]:
        channel = self.world.channel(asked["channel"])
        return self.world.member(asked["user"], self._guild(channel)), channel

    async def _connected(self, asked: dict[str, Any], command: str | None = None, guild: Any = None) -> None:
        """A person can only reach a bot that is there, with its commands registered; tests start both at once."""

        def look() -> bool | None:
            known = command is None or self.world.command(guild.id, command) is not None
            return True if known and (self.gateway.connected() or asked.get("even_offline")) else None

        if await self.world.until(look, asked.get("deadline_s", WAIT_S)) is None:
            known = sorted({name for scope in self.world.backend.commands.values() for name, _ in scope})
            raise TimeoutError(
                f"the bot is not there: {self.gateway.connected()} sessions, /{command} wanted, commands {known}"
            )

    async def _answered(self, asked: dict[str, Any], result: InteractionResult) -> Any:
        record = result._interaction
        await self.world.until(
            lambda: True if record.responded or self.world.backend.now_iso() >= record.initial_response_deadline else None,
            asked.get("deadline_s", WAIT_S),
        )
        return text.answer(self.world, record)

    async def _slash(self, asked: dict[str, Any]) -> Any:
        actor, channel = self._person(asked)
        path = asked["path"]
        await self._connected(asked, path[0], actor.guild)
        options = self.world.options(actor.guild, path, asked.get("options", {}))
        result = await actor.slash(channel, " ".join(path), **options)
        self.world.said[result._interaction.id] = "/" + " ".join(path)
        return await self._answered(asked, result)

    async def _autocomplete(self, asked: dict[str, Any]) -> Any:
        actor, channel = self._person(asked)
        path = asked["path"]
        await self._connected(asked, path[0], actor.guild)
        filled = self.world.options(actor.guild, path, asked.get("options", {}))
        # The choices come with the answer: simcord's method would look for them before the bot has answered.
        before = set(self.world.backend.interactions)
        await actor.autocomplete(channel, " ".join(path), asked["option"], asked["value"], **filled)
        (made,) = set(self.world.backend.interactions) - before
        return await self._answered(asked, InteractionResult(self.world, self.world.interaction(made)))

    async def _click(self, asked: dict[str, Any]) -> Any:
        actor, channel = self._person(asked)
        await self._connected(asked)
        return await self._answered(asked, await self.world.click(actor, channel, asked))

    async def _select(self, asked: dict[str, Any]) -> Any:
        actor, channel = self._person(asked)
        await self._connected(asked)
        return await self._answered(asked, await self.world.select(actor, channel, asked))

    async def _submit_modal(self, asked: dict[str, Any]) -> Any:
        record = self.world.interaction(asked["interaction"])
        channel = self.world.channel(str(record.channel_id))
        actor = self.world.member(str(record.user_id), self._guild(channel))
        await self._connected(asked)
        return await self._answered(asked, await self.world.submit(actor, record, asked.get("values", {})))

    async def _say(self, asked: dict[str, Any]) -> Any:
        actor, channel = self._person(asked)
        return {"message": str(self.world.say(actor, channel, asked["content"]).id)}

    async def _delete(self, asked: dict[str, Any]) -> Any:
        channel = self.world.channel(asked["channel"])
        self.world.backend.delete_message(channel.id, int(asked["message"]))
        return {}

    # --------------------------------------------------------------------- reading

    def _viewed(self, asked: dict[str, Any]) -> tuple[ChannelHandle, MemberActor | None]:
        channel = self.world.channel(asked["channel"])
        viewer = asked.get("as")
        return channel, self.world.member(viewer, self._guild(channel)) if viewer else None

    async def _messages(self, asked: dict[str, Any]) -> Any:
        channel, viewer = self._viewed(asked)
        return [text.message_json(self.world, m) for m in self.world.visible(channel, viewer)]

    async def _text(self, asked: dict[str, Any]) -> Any:
        return {"text": text.channel_text(self.world, *self._viewed(asked))}

    async def _delete_channel(self, asked: dict[str, Any]) -> Any:
        self.world.backend.delete_channel(self.world.channel(asked["channel"]).id)
        return {}

    async def _answer(self, asked: dict[str, Any]) -> Any:
        return text.answer(self.world, self.world.interaction(asked["interaction"]))

    async def _wait(self, asked: dict[str, Any]) -> Any:
        """Wait for one of: a message like `regex` in a channel, an interaction to be finished, a number of requests, a
        presence like a regex, counters of the gateway."""
        deadline_s = asked.get("deadline_s", WAIT_S)
        if "regex" in asked:
            channel, viewer = self._viewed(asked)
            wanted = re.compile(asked["regex"], re.MULTILINE | re.DOTALL)

            def look() -> Any:
                for message in reversed(self.world.visible(channel, viewer)):
                    if wanted.search(text.message_text(self.world, message)):
                        return text.message_json(self.world, message)
                return None

            instead = lambda: text.channel_text(self.world, channel, viewer)  # noqa: E731
        elif "interaction" in asked:
            record = self.world.interaction(asked["interaction"])
            look = lambda: text.answer(self.world, record) if record.responded and not record.loading else None  # noqa: E731
            instead = lambda: text.answer(self.world, record)  # noqa: E731
        elif "requests" in asked:
            look = lambda: found if len(found := self._record(asked)) >= asked["requests"] else None  # noqa: E731
            instead = lambda: self._record(asked)  # noqa: E731
        elif "presence" in asked:
            pattern = re.compile(asked["presence"])
            said = lambda: json.dumps(self.gateway.presence, ensure_ascii=False)  # noqa: E731
            look = lambda: self.gateway.describe() if pattern.search(said()) else None  # noqa: E731
            instead = said
        else:
            floor = {name: value for name, value in asked.items() if name != "deadline_s"}

            def look() -> Any:
                state = self.gateway.describe()
                return state if all(state[name] >= value for name, value in floor.items()) else None

            instead = self.gateway.describe
        found = await self.world.until(look, deadline_s)
        if found is None:
            raise TimeoutError(f"{asked} did not come in {deadline_s} s; instead:\n{instead()}")
        return found

    async def _state(self, _: dict[str, Any]) -> Any:
        commands = {str(scope): [c["name"] for c in made.values()] for scope, made in self.world.backend.commands.items()}
        refused = sum(1 for r in self.rest.record if r["status"] in (401, 403, 429))
        return {**self.gateway.describe(), "commands": commands, "requests": len(self.rest.record), "refused": refused}

    def _record(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        method, path, after = asked.get("method", "*"), asked.get("path", "*"), asked.get("after", 0)
        return [
            r
            for r in self.rest.record
            if r["n"] > after and method in ("*", r["method"]) and fnmatch.fnmatch(r["path"], path)
        ]

    async def _requests(self, asked: dict[str, Any]) -> Any:
        return self._record(asked)

    async def _violations(self, asked: dict[str, Any]) -> Any:
        found = list(self.world.violations)
        if asked.get("take"):
            self.world.violations.clear()
        return {"violations": found, "openapi": self.rest.spec is not None}

    # -------------------------------------------------------------------- breaking

    async def _clock(self, asked: dict[str, Any]) -> Any:
        self.world.backend.advance_clock(float(asked["advance_s"]))
        self.world.touch()
        return {"now": self.world.backend.now_iso()}

    async def _fault(self, asked: dict[str, Any]) -> Any:
        self.rest.faults.append(Fault(**asked))
        return {}

    async def _limit(self, asked: dict[str, Any]) -> Any:
        self.rest.limits.append(Limit(**asked))
        return {}

    async def _outage(self, asked: dict[str, Any]) -> Any:
        """`how`: reset (connections end without an answer), unavailable (503), or null when it is over."""
        how = asked.get("how")
        if how not in (None, "reset", "unavailable"):
            raise ValueError(f"unknown kind of outage {how!r}")
        self.rest.outage = how
        self.gateway.refuse_connections = how is not None
        if how is not None:
            self.gateway.abort_all()
        return {}

    async def _gateway(self, asked: dict[str, Any]) -> Any:
        gateway = self.gateway
        match asked.pop("do", None):
            case "close":
                await gateway.close_all(int(asked["code"]))
            case "abort":
                gateway.abort_all()
            case "reconnect":
                gateway.ask_to_reconnect()
            case "invalidate":
                gateway.invalidate(resumable=bool(asked.get("resumable")))
            case "dispatch":
                gateway.dispatch_all(asked["event"], asked["payload"])
            case "say":
                gateway.send_all(asked["text"])
            case "session_starts":
                gateway.starts.set(int(asked["remaining"]), float(asked["reset_after_s"]))
            case None:
                known = "heartbeat_ms withhold_acks silent refuse_resumes refuse_connections close_after_ready".split()
                for name, value in asked.items():
                    if name not in known:
                        raise ValueError(f"the gateway has no {name!r}")
                    setattr(gateway, name, value)
            case other:
                raise ValueError(f"the gateway cannot {other!r}")
        return gateway.describe()

    # ---------------------------------------------------------------------- looking

    async def _page(self, request: web.Request) -> web.Response:
        """A channel as a web page, for people and for pictures."""
        name = request.match_info.get("channel")
        try:
            channel, viewer = self._viewed({"channel": name, "as": request.query.get("as")}) if name else (None, None)
        except SetupError as missing:
            return web.Response(status=404, text=str(missing))
        page = render.page(self.world, channel, viewer, theme=request.query.get("theme", "light"))
        return web.Response(text=page, content_type="text/html")
