"""The state of the stand-in: a simcord world without a bot inside, on the wall clock.

simcord was written for bots that live in its own process: its actors wait until the bot's tasks have come to rest, and
its clock only moves when a test says so. Here the bot is another process, so actors return at once, whoever needs an
answer waits for it (`World.until`), and the clock is the real one plus what a test has added to it.

Next: rest.py and gateway.py (what the bot talks to), control.py (what a test talks to).
"""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import discord
import simcord
from simcord import interactions
from simcord.actors import MemberActor, _component_interaction, _component_select, _find_component
from simcord.backend import serializers
from simcord.backend.access import can_access_message
from simcord.backend.errors import SetupError
from simcord.backend.models import Interaction, Message, Overwrite
from simcord.builders import ChannelHandle, GuildHandle, RoleHandle, UserHandle
from simcord.components import walk_components
from simcord.enums import ComponentType, InteractionType, OptionType, OverwriteType
from simcord.results import InteractionResult, ResponseMessage

# How often a wait looks again although nothing was reported: the passing of time is not reported.
LOOK_AGAIN_S = 0.1

DENIABLE = "the names are those of discord.py, e.g. view_channel, send_messages, embed_links"


class WallClock:
    """simcord's clock, but real, and movable."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.elapsed)

    def advance(self, seconds: float) -> None:
        self.elapsed += seconds


class World(simcord.Env):
    """Guilds, channels, people, messages and interactions, and a way to wait for them to change."""

    def __init__(self, *, bot_name: str, ack_s: float) -> None:
        # simcord's Env asks for a bot of its own process. This one is never started.
        super().__init__(discord.Client(intents=discord.Intents.none()), check_errors=False)
        self.backend.clock = WallClock()
        self.backend.bot_user.name = bot_name
        self.ack_s = ack_s
        self.locales: dict[int, str] = {}
        self.said: dict[int, str] = {}  # interaction -> "/server start", what the client shows above the answer
        self.violations: list[dict[str, Any]] = []
        self._waiting: set[asyncio.Future[None]] = set()
        self.backend.subscribers.append(lambda _event, _payload: self.touch())
        self._prepare_message = self.backend.prepare_message
        self.backend.prepare_message = self._prepare  # type: ignore[method-assign]

    @property
    def token(self) -> str:
        """Shaped like a real one: libraries read the application's id out of its first part."""
        head = base64.urlsafe_b64encode(str(self.backend.application_id).encode()).decode().rstrip("=")
        return f"{head}.stand1.in-a-token-that-is-no-secret-000000"

    async def _settle_internal(self, **_: Any) -> None:
        """The bot is another process: there is nothing in here to wait for."""

    def _notify_dispatch_observers(self, interaction: Interaction) -> None:
        interaction.initial_response_deadline = self.backend.iso_after(self.ack_s)

    # ---------------------------------------------------------------- waiting

    def touch(self) -> None:
        """Something changed: everyone who waits looks again."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, look: Any, deadline_s: float) -> Any:
        """The first value of `look()` that is not None, or None when the deadline has passed."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        while True:
            value = look()
            if value is not None:
                return value
            left = end - loop.time()
            if left <= 0:
                return None
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.add(future)
            try:
                await asyncio.wait_for(future, min(left, LOOK_AGAIN_S))
            except TimeoutError:
                pass
            finally:
                self._waiting.discard(future)

    def violation(self, where: str, what: str, **more: Any) -> None:
        self.violations.append({"where": where, "what": what, **more})

    # --------------------------------------------------------------- building

    def build(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Make a guild with its roles, channels and people from a description; returns the ids."""
        guild = self.create_guild(spec.get("guild", "Friends"))
        for role in spec.get("roles", []):
            guild.create_role(role["name"], permissions=_permissions(role.get("permissions", [])))
        for channel in spec.get("channels", ["general"]):
            channel = {"name": channel} if isinstance(channel, str) else channel
            handle = guild.create_text_channel(channel["name"], topic=channel.get("topic"))
            self.deny(handle, self.backend.bot_user.id, channel.get("deny_bot", []))
        for user in spec.get("users", []):
            self.join(guild, {"name": user} if isinstance(user, str) else user)
        return self.describe(guild)

    def join(self, guild: GuildHandle, spec: dict[str, Any]) -> MemberActor:
        """A person joins. Permissions of one's own are a role of one's own: Discord has no other way."""
        roles = [self.role(name, guild) for name in spec.get("roles", [])]
        if spec.get("permissions"):
            roles.append(guild.create_role(f"{spec['name']}'s", permissions=_permissions(spec["permissions"])))
        user = self.create_user(spec["name"], global_name=spec.get("display_name"))
        self.locales[user.id] = spec.get("locale", "en-US")
        return guild.add_member(user, roles=roles)

    def deny(self, channel: ChannelHandle, user_id: int, names: list[str]) -> None:
        """Replaces what one member is denied in a channel; nothing denies nothing."""
        others = [o for o in channel._channel.overwrites if o.target_id != user_id]
        if names:
            others.append(Overwrite(user_id, OverwriteType.MEMBER, 0, _permissions(names).value))
        self.backend.edit_channel(channel.id, {}, overwrites=others)

    def describe(self, guild: GuildHandle) -> dict[str, Any]:
        return {
            "guild": str(guild.id),
            "channels": {c.name: str(c.id) for c in self._channels(guild)},
            "roles": {r.name: str(r.id) for r in guild._guild.roles.values()},
            "users": {self.backend.users[m].name: str(m) for m in guild._guild.members},
        }

    # ---------------------------------------------------------------- finding

    def _channels(self, guild: GuildHandle) -> list[ChannelHandle]:
        return [ChannelHandle(self, guild, self.backend.channels[c]) for c in guild._guild.channel_ids]

    def channel(self, name: str) -> ChannelHandle:
        """By name or id, in the first guild that has it."""
        wanted = str(name).removeprefix("#")
        for guild in self._guilds:
            for channel in self._channels(guild):
                if wanted in (channel.name, str(channel.id)):
                    return channel
        raise SetupError(f"there is no channel {name!r}")

    def role(self, name: str, guild: GuildHandle) -> RoleHandle:
        wanted = str(name).removeprefix("@")
        for role in guild._guild.roles.values():
            if wanted in (role.name.removeprefix("@"), str(role.id)):
                return RoleHandle(self, guild, role)
        raise SetupError(f"there is no role {name!r}")

    def member(self, name: str, guild: GuildHandle) -> MemberActor:
        wanted = str(name).removeprefix("@")
        for user_id in guild._guild.members:
            user = self.backend.users[user_id]
            if wanted in (user.name, str(user_id)):
                return MemberActor(self, guild, UserHandle(self, user))
        raise SetupError(f"there is nobody called {name!r} in {guild.name}")

    def interaction(self, interaction_id: Any) -> Interaction:
        record = self.backend.interactions.get(int(interaction_id))
        if record is None:
            raise SetupError(f"there is no interaction {interaction_id}")
        return record

    def visible(self, channel: ChannelHandle, viewer: MemberActor | None) -> list[Message]:
        """The channel's messages, oldest first, as one person sees them. Nobody in particular sees no ephemeral ones."""
        messages = sorted(self.backend.messages[channel.id].values(), key=lambda m: m.id)
        if viewer is None:
            return [m for m in messages if not m.is_ephemeral]
        return [m for m in messages if can_access_message(self, channel.id, m, viewer, history=True)]

    # ----------------------------------------------------------------- acting

    def command(self, guild_id: int | None, name: str) -> dict[str, Any] | None:
        return self.backend.find_command(name, guild_id)

    def options(self, guild: GuildHandle, path: list[str], raw: dict[str, Any]) -> dict[str, Any]:
        """What a person typed, as the types that the command declares."""
        root = self.command(guild.id, path[0])
        if root is None:
            raise SetupError(f"there is no command /{path[0]}")
        leaf, _ = interactions.walk_to_subcommand(root, path[1:])
        declared = {option["name"]: option["type"] for option in leaf.get("options") or []}
        return {name: self._option(guild, declared.get(name), value) for name, value in raw.items()}

    def _option(self, guild: GuildHandle, kind: int | None, raw: Any) -> Any:
        if not isinstance(raw, str):
            return raw
        match kind:
            case OptionType.INTEGER:
                return int(raw)
            case OptionType.NUMBER:
                return float(raw)
            case OptionType.BOOLEAN:
                return {"true": True, "false": False}[raw.lower()]
            case OptionType.USER:
                return self.member(raw, guild)
            case OptionType.ROLE:
                return self.role(raw, guild)
            case OptionType.CHANNEL:
                return self.channel(raw)
            case OptionType.MENTIONABLE:
                try:
                    return self.member(raw, guild)
                except SetupError:
                    return self.role(raw, guild)
            case _:
                return raw

    def find_component(self, actor: MemberActor, channel: ChannelHandle, spec: dict[str, Any]) -> Message:
        """The message that is meant: the one named, or the newest that has the component."""
        messages = self.visible(channel, actor)
        if spec.get("message"):
            messages = [m for m in messages if str(m.id) == str(spec["message"])]
        for message in reversed(messages):
            for part in walk_components(message.components):
                if not part.get("custom_id") and not part.get("url"):
                    continue
                if (spec.get("custom_id") or part.get("custom_id")) != part.get("custom_id"):
                    continue
                if spec.get("label") is None or label_of(part) == spec["label"]:
                    return message
        raise SetupError(f"{actor.name} sees nothing like {spec} in #{channel.name}")

    def _prepare(self, *fields: Any, **named: Any) -> Message:
        """Discord always says which message was clicked and what opened a form; strict clients refuse an interaction
        whose message does not, and simcord omits it."""
        metadata = named.get("interaction_metadata")
        record = self.backend.interactions.get(int(metadata["id"])) if metadata else None
        if metadata and record:
            clicked = {"interacted_message_id": str(record.source_message_id)} if record.source_message_id else {}
            match record.type:
                case InteractionType.MESSAGE_COMPONENT:
                    metadata.update(clicked)
                case InteractionType.MODAL_SUBMIT:
                    before = InteractionType.MESSAGE_COMPONENT if clicked else InteractionType.APPLICATION_COMMAND
                    metadata["triggering_interaction_metadata"] = {**metadata, "type": int(before), **clicked}
        return self._prepare_message(*fields, **named)

    async def click(self, actor: MemberActor, channel: ChannelHandle, spec: dict[str, Any]) -> InteractionResult:
        message = self.find_component(actor, channel, spec)
        custom_id = spec.get("custom_id") or next(
            part.get("custom_id")
            for part in walk_components(message.components)
            if label_of(part) == spec["label"] and (part.get("custom_id") or part.get("url"))
        )
        if custom_id is None:
            raise SetupError(f"{spec['label']!r} is a link: Discord opens it without asking the bot")
        button = _find_component(message.components, types=(ComponentType.BUTTON,), custom_id=custom_id, label=None)
        data = {"custom_id": custom_id, "component_type": ComponentType.BUTTON, "id": button.get("id") or 0}
        return await _component_interaction(actor, message, data)

    async def select(self, actor: MemberActor, channel: ChannelHandle, spec: dict[str, Any]) -> InteractionResult:
        message = self.find_component(actor, channel, spec)
        values = [self._choice(actor.guild, message, spec.get("custom_id"), value) for value in spec["values"]]
        return await _component_select(actor, ResponseMessage(self, message), values, custom_id=spec.get("custom_id"))

    def _choice(self, guild: GuildHandle, message: Message, custom_id: str | None, value: str) -> Any:
        for part in walk_components(message.components):
            if custom_id in (None, part.get("custom_id")):
                match part.get("type"):
                    case ComponentType.USER_SELECT:
                        return self.member(value, guild)
                    case ComponentType.ROLE_SELECT:
                        return self.role(value, guild)
                    case ComponentType.CHANNEL_SELECT:
                        return self.channel(value)
                    case ComponentType.STRING_SELECT:
                        # People choose what they read; the bot gets what it put behind it.
                        read = {o["label"]: o["value"] for o in part.get("options") or []}
                        return read.get(value, value)
        return value

    async def submit(self, actor: MemberActor, record: Interaction, typed: dict[str, Any]) -> InteractionResult:
        """Fill in the modal that an interaction opened: fields by label or custom_id, untouched ones as they stood."""
        fields = modal_fields(record.modal or {})
        values: dict[str, Any] = {}
        for field in fields:
            if field.get("value"):
                values[field["custom_id"]] = field["value"]
        for name, value in typed.items():
            match = [f["custom_id"] for f in fields if name in (f.get("label"), f["custom_id"])]
            if len(match) != 1:
                raise SetupError(f"the modal has no field {name!r}, but {[f.get('label') for f in fields]}")
            values[match[0]] = value
        return await actor.submit_modal(InteractionResult(self, record), values)

    def say(self, actor: MemberActor, channel: ChannelHandle, content: str) -> Message:
        actor._check(channel, "send_messages")
        return self.backend.create_message(channel.id, actor.id, content)


def label_of(part: dict[str, Any]) -> str | None:
    """What stands on a button or in an empty select: emoji and label."""
    emoji = (part.get("emoji") or {}).get("name")
    text = part.get("label") or part.get("placeholder")
    return f"{emoji} {text}" if emoji and text else emoji or text


def modal_fields(modal: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of a modal, each with its label, whether it stands in an action row or in a Label component."""
    found = []
    for row in modal.get("components") or []:
        if row.get("type") == ComponentType.LABEL:
            found.append({**(row.get("component") or {}), "label": row.get("label")})
        else:
            found.extend(dict(part) for part in row.get("components") or [])
    return [field for field in found if field.get("custom_id")]


def _permissions(names: list[str]) -> discord.Permissions:
    unknown = [name for name in names if name not in discord.Permissions.VALID_FLAGS]
    if unknown:
        raise SetupError(f"unknown permissions {unknown}: {DENIABLE}")
    return discord.Permissions(**{name: True for name in names})


