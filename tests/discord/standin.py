"""A Discord that is not Discord's: a bot connects to it over HTTP and WebSocket as to the real one, and a test plays the
people. State and rules are simcord's (PyPI, MIT); this folder adds the transport, faults, and checks.

    scripts/lib/python-env discord              # prints the interpreter to use
    …/python tests/discord/standin.py           # prints one line of JSON: where it listens, which token it takes

Then start the bot with that `api_url` and `token`. `curl -d '{…}' CONTROL/slash` and the rest of control.py make people
do things, and CONTROL/channels/general in a browser shows the channel.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

import openapi
from control import Control
from gateway import Gateway
from rest import PREFIX, Rest
from world import World

SPECS = "SPAWNPOINT_SPECS"
MAX_BODY_BYTES = 26_214_400  # Discord's own limit for a request with files, 25 MiB


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="Discord's API and gateway (0: any free port)")
    parser.add_argument("--control-port", type=int, default=0, help="the test's side (0: any free port)")
    parser.add_argument("--bot-name", default="Spawnpoint")
    parser.add_argument("--world", type=json.loads, help='e.g. {"channels": ["general"], "users": ["alice"]}')
    parser.add_argument("--ack-s", type=float, default=3.0, help="time for the first answer to an interaction")
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end with the process that started this one"
    )
    return parser.parse_args()


def load_spec() -> openapi.Spec | None:
    """Discord's OpenAPI, if it is at hand."""
    folder = os.environ.get(SPECS)
    if not folder:
        return None
    path = Path(folder) / "discord-openapi.json"
    if not path.is_file():
        sys.exit(f"{SPECS} is set, but there is no {path}")
    return openapi.Spec(path)


async def listen(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    # Nobody is waited for at the end: whoever ends this wants it gone.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return runner, runner.addresses[0][1]


async def main() -> None:
    # It lives as long as a test, and a full collection would keep everybody waiting for up to half a second.
    gc.disable()
    chosen = arguments()
    spec = load_spec()
    world = World(bot_name=chosen.bot_name, ack_s=chosen.ack_s)
    gateway = Gateway(world)
    rest = Rest(world, gateway, spec)

    discord = web.Application(client_max_size=MAX_BODY_BYTES)
    for path in ("/gateway", "/gateway/"):
        discord.router.add_get(path, gateway.handle)
    discord.router.add_route("*", PREFIX + "/{path:.*}", rest.handle)
    api, port = await listen(discord, chosen.port)
    gateway.url = f"ws://127.0.0.1:{port}/gateway"

    info: dict[str, Any] = {
        "api_url": f"http://127.0.0.1:{port}",
        "token": world.token,
        "application_id": str(world.backend.application_id),
        "openapi": spec is not None,
    }
    side, control_port = await listen(Control(world, rest, gateway, info).app(), chosen.control_port)
    info["control_url"] = f"http://127.0.0.1:{control_port}"
    if chosen.world is not None:
        world.build(chosen.world)
        gateway.approved = frozenset(chosen.world.get("approved_intents", []))

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    if chosen.until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), lambda: os.read(sys.stdin.fileno(), 4096) or ended.set())
    print(json.dumps(info), flush=True)
    await ended.wait()
    gateway.abort_all()
    await api.cleanup()
    await side.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
