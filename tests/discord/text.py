"""A channel as text, as a person would read it: for snapshots in tests.

    alice used /server start
    Spawnpoint:
      Starting **world**.
      ▌ Title
      ▌ Players: 3/10
      [Stop] [Restart (disabled)] [Map → https://…]
"""

from __future__ import annotations

import re
from typing import Any

from simcord.backend.models import Interaction, Message
from simcord.components import walk_components
from simcord.enums import SELECT_TYPES, ComponentType

from world import World, label_of, modal_fields

LOADING = 1 << 7


def channel_text(world: World, channel: Any, viewer: Any) -> str:
    return "\n".join(message_text(world, message) for message in world.visible(channel, viewer))


def message_text(world: World, message: Message) -> str:
    """One message with all that hangs on it."""
    lines = []
    head = author(world, message)
    if used := used_command(world, message):
        lines.append(used)
    if message.is_ephemeral:
        head += f" (only {reader(world, message)} sees this)"
    if message.flags & LOADING:
        return "\n".join([*lines, f"{head} is thinking…"])
    body = body_lines(world, message)
    if pinged := pings(world, message):
        body.append(f"(pings {', '.join(pinged)})")
    if message.pinned:
        body.append("(pinned)")
    return "\n".join([*lines, f"{head}:", *(f"  {line}".rstrip() for line in body)])


def author(world: World, message: Message) -> str:
    user = world.backend.users[message.author_id]
    return message.author_name or user.global_name or user.name


def reader(world: World, message: Message) -> str:
    return str((message.interaction_metadata or {}).get("user", {}).get("username"))


def used_command(world: World, message: Message) -> str | None:
    metadata = message.interaction_metadata or {}
    said = world.said.get(int(metadata.get("id", 0)))
    return f"{metadata['user']['username']} used {said}" if said else None


def body_lines(world: World, message: Message) -> list[str]:
    lines = names(world, message.content).splitlines() if message.content else []
    for embed in message.embeds:
        lines += [f"▌ {line}".rstrip() for line in _embed_lines(world, embed)]
    for item in message.attachments:
        lines.append(f"file {item['filename']}, {item['size']} bytes")
    return lines + component_lines(world, message.components)


def _embed_lines(world: World, embed: dict[str, Any]) -> list[str]:
    lines = []
    if name := (embed.get("author") or {}).get("name"):
        lines.append(name)
    if title := embed.get("title"):
        lines.append(f"{title} → {embed['url']}" if embed.get("url") else title)
    if text := embed.get("description"):
        lines += text.splitlines()
    for field in embed.get("fields") or []:
        first, *rest = str(field["value"]).splitlines() or [""]
        lines += [f"{field['name']}: {first}", *(f"  {line}" for line in rest)]
    if footer := (embed.get("footer") or {}).get("text"):
        lines.append(f"— {footer}")
    if embed.get("timestamp"):
        lines.append(f"— <t:{embed['timestamp']}>")
    return [names(world, line) for line in lines]


def component_lines(world: World, components: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in components:
        match row.get("type"):
            case ComponentType.ACTION_ROW:
                lines.append(" ".join(_control(part) for part in row.get("components") or []))
            case ComponentType.TEXT_DISPLAY:
                lines += names(world, row["content"]).splitlines()
            case ComponentType.SEPARATOR:
                lines.append("────")
            case ComponentType.SECTION:
                lines += component_lines(world, row.get("components") or [])
                lines.append(_control(row.get("accessory") or {}))
            case ComponentType.CONTAINER:
                lines += [f"▌ {line}".rstrip() for line in component_lines(world, row.get("components") or [])]
            case other:
                lines.append(f"({ComponentType(other).name.lower()})")
    return lines


def _control(part: dict[str, Any]) -> str:
    off = " (disabled)" if part.get("disabled") else ""
    if part.get("type") == ComponentType.BUTTON:
        return f"[{label_of(part)}{off} → {part['url']}]" if part.get("url") else f"[{label_of(part)}{off}]"
    if part.get("type") in SELECT_TYPES:
        choices = [option["label"] + (" ✓" if option.get("default") else "") for option in part.get("options") or []]
        return f"[{label_of(part) or 'choose'}{off}: {' | '.join(choices)}]"
    return f"({ComponentType(part['type']).name.lower()})"


def modal_text(modal: dict[str, Any]) -> str:
    """A form as the person sees it: title, fields with what stands in them, what is required."""
    lines = [f"form {modal['title']}:"]
    for field in modal_fields(modal):
        need = "" if field.get("required", True) else " (optional)"
        hint = f" <{field['placeholder']}>" if field.get("placeholder") else ""
        lines.append(f"  {field.get('label')}{need}: {field.get('value') or ''}{hint}".rstrip())
    return "\n".join(lines)


def pings(world: World, message: Message) -> list[str]:
    """Who is notified: mentions that are only shown do not count."""
    found = ["@everyone"] if message.mention_everyone else []
    found += [f"@{world.backend.users[u].name}" for u in message.ping_user_ids if u in world.backend.users]
    return found + [f"@{_role_name(world, role)}" for role in message.ping_role_ids]


def names(world: World, text: str) -> str:
    """Mentions as the client shows them."""
    users, channels = world.backend.users, world.backend.channels

    def user(match: re.Match[str]) -> str:
        found = users.get(int(match[1]))
        return f"@{found.name}" if found else match[0]

    def channel(match: re.Match[str]) -> str:
        found = channels.get(int(match[1]))
        return f"#{found.name}" if found else match[0]

    text = re.sub(r"<@!?(\d+)>", user, text)
    text = re.sub(r"<@&(\d+)>", lambda m: f"@{_role_name(world, int(m[1]))}", text)
    text = re.sub(r"<#(\d+)>", channel, text)
    return re.sub(r"</([^:>]+):\d+>", r"/\1", text)


def _role_name(world: World, role_id: int) -> str:
    for guild in world.backend.guilds.values():
        if role_id in guild.roles:
            return guild.roles[role_id].name.removeprefix("@")
    return f"role {role_id}"


def answer(world: World, record: Interaction) -> dict[str, Any]:
    """What came back to the person who caused an interaction."""
    messages = world.backend.messages.get(record.channel_id, {})
    message = messages.get(record.message_id or 0)
    return {
        "interaction": str(record.id),
        "kind": str(record.response_kind) if record.response_kind else None,
        "thinking": record.loading,
        "ephemeral": record.ephemeral,
        "message": str(record.message_id) if record.message_id else None,
        "text": message_text(world, message) if message else None,
        "content": message.content if message else None,
        "followups": [message_text(world, messages[i]) for i in record.followup_ids if i in messages],
        "modal": modal_text(record.modal) if record.modal else None,
        "choices": record.autocomplete_choices,
    }


def message_json(world: World, message: Message) -> dict[str, Any]:
    return {
        "id": str(message.id),
        "channel": str(message.channel_id),
        "author": author(world, message),
        "from_bot": message.author_id == world.backend.bot_user.id,
        "content": message.content,
        "embeds": message.embeds,
        "components": [c for c in walk_components(message.components) if c.get("custom_id") or c.get("url")],
        "attachments": message.attachments,
        "ephemeral": message.is_ephemeral,
        "thinking": bool(message.flags & LOADING),
        "edited": message.edited_timestamp,
        "pinned": message.pinned,
        "pings": pings(world, message),
        "text": message_text(world, message),
    }
