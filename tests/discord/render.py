"""A channel as a web page, in a neutral style: the picture of the README is taken of it.

It shows what the stand-in holds (what the bot really sent) and decides nothing. Layout and colours are our own.
"""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import simcord
from simcord.backend.models import Message
from simcord.enums import SELECT_TYPES, ComponentType

import text
from world import World, label_of

FONTS = Path(simcord.__file__).with_name("preview") / "static" / "fonts"

STYLE = """
@font-face { font-family:Text; font-weight:100 900; src:url(/fonts/noto-sans-latin-v2.015.ttf) }
@font-face { font-family:Text; font-weight:100 900; font-style:italic; src:url(/fonts/noto-sans-latin-italic-v2.015.ttf) }
@font-face { font-family:Code; font-weight:100 900; src:url(/fonts/noto-sans-mono-v2.014.ttf) }
@font-face { font-family:Emoji; src:url(/fonts/noto-color-emoji-v2.051.ttf) }
:root { --page:#fff; --text:#1f2328; --faint:#667085; --line:#e3e6ea; --box:#f5f6f8; --code:#eef0f3; --link:#2457c5;
  --primary:#3559d6; --good:#22803c; --bad:#c23b35; --plain:#e4e7ec; --on-plain:#1f2328 }
.dark { --page:#22252a; --text:#e3e6ea; --faint:#9aa3ae; --line:#363b43; --box:#2b2f36; --code:#1a1d21; --link:#8fb2ff;
  --plain:#454b55; --on-plain:#f2f4f7 }
* { box-sizing:border-box }
body { margin:0; background:var(--page); color:var(--text); font:15px/1.4 Text,Emoji,sans-serif }
header { padding:12px 20px; border-bottom:1px solid var(--line); font-weight:600 }
header span { color:var(--faint); font-weight:400; margin-left:12px }
main { padding:8px 20px 20px; max-width:820px }
article { display:grid; grid-template-columns:40px 1fr; column-gap:14px; padding:9px 0 }
.face { width:40px; height:40px; border-radius:50%; display:grid; place-items:center; color:#fff; font-weight:600 }
.used { grid-column:2; font-size:13px; color:var(--faint); margin-bottom:2px }
.used b { color:var(--text) } .used code { color:var(--link); background:none; padding:0 }
.who b { margin-right:6px } .who time { color:var(--faint); font-size:12px }
.app { background:var(--primary); color:#fff; border-radius:4px; font-size:10px; padding:1px 5px; margin-right:6px;
  font-weight:600; vertical-align:1px }
.private { color:var(--faint); font-size:12px; margin-top:4px }
.body { grid-column:2; min-width:0; overflow-wrap:anywhere }
.body p { margin:0; white-space:pre-wrap } .body h1,.body h2,.body h3 { margin:6px 0 2px; font-size:1.25em }
.body h2 { font-size:1.12em } .body h3 { font-size:1em } .sub { color:var(--faint); font-size:13px }
blockquote { margin:0; padding-left:10px; border-left:3px solid var(--line); white-space:pre-wrap }
code { background:var(--code); border-radius:4px; padding:1px 4px; font:13px/1.45 Code,Emoji,monospace }
pre { background:var(--code); border:1px solid var(--line); border-radius:6px; padding:8px 10px; margin:4px 0; overflow:hidden;
  white-space:pre-wrap; font:13px/1.45 Code,Emoji,monospace }
.embed { background:var(--box); border:1px solid var(--line); border-left:4px solid var(--accent); border-radius:6px;
  padding:10px 14px; margin-top:6px; max-width:560px }
.embed > b { display:block; margin-bottom:4px } .embed footer { color:var(--faint); font-size:12px; margin-top:8px }
.fields { display:grid; grid-template-columns:repeat(3,1fr); gap:8px 14px; margin-top:8px }
.fields div { grid-column:1/-1 } .fields div.inline { grid-column:auto } .fields b { display:block; font-size:13px }
.row { display:flex; flex-wrap:wrap; gap:8px; margin-top:8px }
.button { border-radius:6px; padding:5px 14px; font-size:14px; font-weight:500; color:#fff; background:var(--primary) }
.s2,.s5 { background:var(--plain); color:var(--on-plain) } .s3 { background:var(--good) } .s4 { background:var(--bad) }
.off { opacity:.45 } .select { border:1px solid var(--line); background:var(--box); border-radius:6px; padding:6px 12px;
  min-width:260px; color:var(--faint) }
.file { border:1px solid var(--line); background:var(--box); border-radius:6px; padding:8px 12px; margin-top:6px }
a { color:var(--link); text-decoration:none }
.mention { background:color-mix(in srgb,var(--primary) 18%,transparent); border-radius:4px; padding:0 3px; color:var(--link) }
"""
FACES = ("#3559d6", "#22803c", "#a04a9c", "#b0561b", "#1f7a8c", "#7a5bd0")
DEFAULT_ACCENT = "#8a93a0"


def page(world: World, channel: Any, viewer: Any, *, theme: str) -> str:
    """One channel, or the list of them."""
    if channel is None:
        links = [
            f'<p><a href="/channels/{c.name}"># {html.escape(str(c.name))}</a></p>'
            for guild in world._guilds
            for c in world._channels(guild)
        ]
        return _document("Channels", theme, f"<header>Channels</header><main>{''.join(links)}</main>")
    name, topic = html.escape(str(channel.name)), html.escape(channel._channel.topic or "")
    messages = "".join(_message(world, m) for m in world.visible(channel, viewer))
    return _document(name, theme, f"<header># {name}<span>{topic}</span></header><main>{messages}</main>")


def _document(title: str, theme: str, body: str) -> str:
    look = "dark" if theme == "dark" else "light"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<style>{STYLE}</style></head><body class="{look}">{body}</body></html>'
    )


def _message(world: World, message: Message) -> str:
    name = text.author(world, message)
    face = FACES[sum(name.encode()) % len(FACES)]
    app = '<span class="app">APP</span>' if world.backend.users[message.author_id].bot else ""
    at = datetime.fromisoformat(message.timestamp).strftime("%H:%M")
    used = ""
    if said := text.used_command(world, message):
        who, command = said.split(" used ", 1)
        used = f'<div class="used"><b>{html.escape(who)}</b> used <code>{html.escape(command)}</code></div>'
    if message.flags & text.LOADING:
        inner = f'<p class="sub">{html.escape(name)} is thinking…</p>'
    else:
        inner = markdown(world, message.content) if message.content else ""
        inner += "".join(_embed(world, embed) for embed in message.embeds)
        inner += "".join(_file(item) for item in message.attachments)
        inner += "".join(_component(world, part) for part in message.components)
    if message.is_ephemeral:
        inner += f'<div class="private">Only {html.escape(text.reader(world, message))} can see this</div>'
    return (
        f'<article>{used}<div class="face" style="background:{face}">{html.escape(name[:1].upper())}</div>'
        f'<div class="body"><div class="who"><b>{html.escape(name)}</b>{app}<time>{at}</time></div>{inner}</div></article>'
    )


def _embed(world: World, embed: dict[str, Any]) -> str:
    accent = f"#{embed['color']:06x}" if embed.get("color") else DEFAULT_ACCENT
    parts = []
    if name := (embed.get("author") or {}).get("name"):
        parts.append(f'<p class="sub">{html.escape(name)}</p>')
    if title := embed.get("title"):
        parts.append(f"<b>{_inline(world, title)}</b>")
    if description := embed.get("description"):
        parts.append(markdown(world, description))
    if fields := embed.get("fields"):
        cells = (
            f'<div class="{"inline" if f.get("inline") else ""}"><b>{_inline(world, f["name"])}</b>'
            f"{markdown(world, f['value'])}</div>"
            for f in fields
        )
        parts.append(f'<div class="fields">{"".join(cells)}</div>')
    if footer := (embed.get("footer") or {}).get("text"):
        parts.append(f"<footer>{html.escape(footer)}</footer>")
    return f'<div class="embed" style="--accent:{accent}">{"".join(parts)}</div>'


def _file(item: dict[str, Any]) -> str:
    return f'<div class="file">{html.escape(item["filename"])} <span class="sub">{item["size"]} bytes</span></div>'


def _component(world: World, part: dict[str, Any]) -> str:
    off = " off" if part.get("disabled") else ""
    match part.get("type"):
        case ComponentType.ACTION_ROW:
            return f'<div class="row">{"".join(_component(world, p) for p in part.get("components") or [])}</div>'
        case ComponentType.BUTTON:
            return f'<span class="button s{part.get("style", 2)}{off}">{html.escape(label_of(part) or "")}</span>'
        case ComponentType.TEXT_DISPLAY:
            return markdown(world, part["content"])
        case ComponentType.CONTAINER:
            accent = f"#{part['accent_color']:06x}" if part.get("accent_color") else DEFAULT_ACCENT
            inner = "".join(_component(world, p) for p in part.get("components") or [])
            return f'<div class="embed" style="--accent:{accent}">{inner}</div>'
        case ComponentType.SECTION:
            inner = "".join(_component(world, p) for p in part.get("components") or [])
            return f'<div class="row">{inner}{_component(world, part.get("accessory") or {})}</div>'
        case kind if kind in SELECT_TYPES:
            return f'<span class="select{off}">{html.escape(label_of(part) or "Choose")} ▾</span>'
        case _:
            return ""


def markdown(world: World, source: str) -> str:
    """The part of Discord's markdown that a bot uses."""
    out = []
    for index, block in enumerate(re.split(r"```(?:[a-zA-Z0-9+-]*\n)?(.*?)```", source, flags=re.DOTALL)):
        if index % 2:
            out.append(f"<pre>{html.escape(block.strip(chr(10)))}</pre>")
            continue
        for line in block.strip("\n").split("\n") if block.strip("\n") else []:
            if match := re.match(r"(#{1,3}) (.*)", line):
                level = len(match[1])
                out.append(f"<h{level}>{_inline(world, match[2])}</h{level}>")
            elif line.startswith("-# "):
                out.append(f'<p class="sub">{_inline(world, line[3:])}</p>')
            elif line.startswith("> "):
                out.append(f"<blockquote>{_inline(world, line[2:])}</blockquote>")
            elif match := re.match(r"( *)[-*] (.*)", line):
                out.append(f'<p style="padding-left:{8 + 8 * len(match[1])}px">• {_inline(world, match[2])}</p>')
            else:
                out.append(f"<p>{_inline(world, line) or '&nbsp;'}</p>")
    return "".join(out)


def _inline(world: World, source: str) -> str:
    # Code keeps its signs, and may stand in the middle of something bold: it is put aside until the rest is done.
    codes: list[str] = []

    def aside(match: re.Match[str]) -> str:
        codes.append(f"<code>{html.escape(match[1])}</code>")
        return f"\x05{len(codes) - 1}\x06"

    piece = re.sub(r"`([^`]+)`", aside, source)
    marked = re.sub(r"<(?:@[!&]?|#)\d+>", lambda m: f"\x01{text.names(world, m[0])}\x02", piece)
    marked = re.sub(r"<t:(-?\d+)(?::([a-zA-Z]))?>", lambda m: _time(world, int(m[1]), m[2] or "f"), marked)
    line = html.escape(marked, quote=False)
    # A backslash takes the meaning from the character behind it.
    line = re.sub(r"\\([^\w\s])", lambda m: f"\x03{ord(m[1])}\x04", line)
    line = re.sub(r"\[([^\]]+)\]\((https?://[^)\s]+)\)", r'<a href="\2">\1</a>', line)
    line = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", line)
    line = re.sub(r"__(.+?)__", r"<u>\1</u>", line)
    line = re.sub(r"~~(.+?)~~", r"<s>\1</s>", line)
    line = re.sub(r"(?<![\w*])[*_]([^*_]+)[*_](?![\w*])", r"<i>\1</i>", line)
    line = re.sub(r"\x03(\d+)\x04", lambda m: html.escape(chr(int(m[1]))), line)
    line = re.sub(r"\x05(\d+)\x06", lambda m: codes[int(m[1])], line)
    return line.replace("\x01", '<span class="mention">').replace("\x02", "</span>")


def _time(world: World, unix: int, style: str) -> str:
    at = datetime.fromtimestamp(unix, UTC)
    if style != "R":
        return at.strftime({"t": "%H:%M", "T": "%H:%M:%S", "d": "%Y-%m-%d"}.get(style, "%Y-%m-%d %H:%M"))
    seconds = (at - world.backend.clock.now()).total_seconds()
    for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        if abs(seconds) >= size or size == 1:
            count = round(abs(seconds) / size)
            some = f"{count} {name}{'' if count == 1 else 's'}"
            return f"in {some}" if seconds > 0 else f"{some} ago"
    return ""
