"""Four clouds that are not the companies': a client rents hosts from them as from Linode, Hetzner, DigitalOcean and Vultr,
and the hosts are real enough to log in to, play on, and lose. In front, each provider's HTTP API; behind it Docker
containers that boot with the real cloud-init and sshd.

    scripts/lib/test-images host                # the image of the machines
    scripts/lib/python-env cloud                # prints the interpreter to use
    …/python tests/cloud/standin.py             # prints `listening http://127.0.0.1:PORT`

The providers' base URLs are then …/linode, …/hetzner, …/digitalocean and …/vultr. Every bearer token is good but `wrong`.
…/_control is the test's side, see control.py. With SPAWNPOINT_SPECS naming the folder of the providers' descriptions,
each request and each answer is held against them, also where a rule makes it fail; what does not keep to them is answered
500 and kept on record. What is outside of the descriptions is a rule of its own, `proxy`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from control import Control
from digitalocean import DigitalOcean
from faults import Rule, Rules
from hetzner import Hetzner
from linode import Linode
from machines import IMAGES, PUBLISH, Machines, reap
from provider import Call, Handler, Provider, Refusal, WordsUnknown
from vultr import Vultr
from world import World

SPECS = "SPAWNPOINT_SPECS"
WRONG_TOKEN = "wrong"

# Status, body and headers of an answer.
Told = tuple[int, Any, dict[str, str]]


@dataclass
class Asked:
    """A request that keeps to the description, and who can answer it."""

    call: Call
    handler: Handler


class Clouds:
    """The API side: from a request to a provider's answer, through failures and checks."""

    def __init__(self, world: World, specs: Path | None) -> None:
        self.world = world
        self.rules = Rules()
        # Requests that were cut off, to be carried out when all is healed.
        self.late: list[Callable[[], Any]] = []
        self.violations: list[dict[str, str]] = []
        self.requests: list[dict[str, Any]] = []
        self._specs = specs
        made: list[Provider] = [Linode(world), Hetzner(world), DigitalOcean(world), Vultr(world)]
        self.providers = {one.name: one for one in made}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        provider = self.providers[request.match_info["provider"]]
        path = "/" + request.match_info["path"]
        record: dict[str, Any] = {"provider": provider.name, "method": request.method, "path": path, "status": None}
        self.requests.append(record)
        raw = await request.read()
        rule = self.rules.strike(provider.name, request.method, path)
        if rule is not None:
            record["failure"] = rule.kind
        if rule is not None and rule.kind == "slow":
            await asyncio.sleep(rule.seconds)
        asked = self._understood(provider, request, path, raw)
        if rule is not None and rule.kind in ("drop_before", "late"):
            if rule.kind == "late" and isinstance(asked, Asked):
                self.late.append(lambda: self._answered(provider, asked, None))
            return _cut(request)
        status, body, headers = self._answered(provider, asked, rule) if isinstance(asked, Asked) else asked
        record["status"] = status
        if rule is not None and rule.kind == "drop_after":
            return _cut(request)
        if isinstance(body, str):
            return web.Response(status=status, text=body, headers=headers)
        if body is None:
            return web.Response(status=status, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    def _understood(self, provider: Provider, request: web.Request, path: str, raw: bytes) -> Asked | Told:
        """The request, or what is told of one that does not keep to the description. A request that will fail for another
        reason is one of the client's all the same."""
        try:
            asked = json.loads(raw) if raw else None
        except ValueError:
            return self._violation(provider, f"{request.method} {path}", ["the body is no JSON"])
        call = Call(request.method, path, dict(request.query), request.headers, asked)
        handler = provider.find(call)
        spec = self._spec(provider)
        if spec is not None:
            wrong = spec.request(call.method, path, call.query, asked) + provider.check(call)
            if wrong:
                return self._violation(provider, f"{call.method} {path}", wrong)
        if handler is None:
            return self._violation(provider, f"{call.method} {path}", ["the stand-in cannot do this"])
        return Asked(call, handler)

    def _answered(self, provider: Provider, asked: Asked, rule: Rule | None) -> Told:
        call = asked.call
        if rule is not None and rule.kind == "proxy":
            return rule.code, rule.body, rule.headers
        try:
            status, body, headers = self._decided(provider, asked, rule)
        except WordsUnknown as unknown:
            return self._violation(provider, f"{call.method} {call.path}", [str(unknown)])
        spec = self._spec(provider)
        wrong = [] if spec is None else spec.answer(call.method, call.path, status, body)
        if wrong:
            return self._violation(provider, f"the answer {status} to {call.method} {call.path}", wrong)
        return status, body, headers

    def _decided(self, provider: Provider, asked: Asked, rule: Rule | None) -> Told:
        call = asked.call
        token = call.headers.get("Authorization", "")
        if not token.startswith("Bearer ") or token == f"Bearer {WRONG_TOKEN}":
            return _refused(provider, provider.known_refusal("unauthorized"), {})
        if rule is not None and rule.kind == "status":
            if rule.body is not None:
                return rule.code, rule.body, rule.headers
            return _refused(provider, provider.refusal_with(rule.code), rule.headers)
        if rule is not None and rule.kind in ("capacity", "quota", "denied", "pending"):
            return _refused(provider, provider.known_refusal(rule.kind), rule.headers)
        if rule is not None and rule.kind == "half_delete":
            call.leaving_looks = rule.polls
        if rule is not None and rule.kind == "stale_list":
            call.shows_gone = True
        try:
            status, body = asked.handler(call)
        except Refusal as refused:
            return _refused(provider, refused, {})
        return status, body, {}

    def _spec(self, provider: Provider) -> Any:
        if provider.spec is None and self._specs is not None:
            provider.spec = provider.load_spec(self._specs / provider.spec_file)
        return provider.spec

    def _violation(self, provider: Provider, where: str, wrong: list[str]) -> Told:
        self.violations += [{"provider": provider.name, "where": where, "what": what} for what in wrong]
        return 500, f"stand-in: {where}: {'; '.join(wrong)}", {}


def _refused(provider: Provider, refused: Refusal, headers: dict[str, str]) -> Told:
    return refused.status, provider.refusal(refused), headers


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--mode", choices=("docker", "none"), default="docker", help="what hosts are made of")
    parser.add_argument("--init", choices=tuple(IMAGES), default="plain", help="what runs as process 1 on the hosts")
    parser.add_argument("--addresses", default=_own_addresses(), help="the hosts' addresses, of 127.0.0.0/8")
    parser.add_argument("--publish", default=PUBLISH, help="the ports that can be reached at all (default: %(default)s)")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started this one")
    parser.add_argument("--reap", action="store_true", help="remove what killed stand-ins have left, and end")
    return parser.parse_args()


def _own_addresses() -> str:
    """A network that stand-ins which run at the same time do not share."""
    number = os.getpid()
    return f"127.{64 + number // 254 % 60}.{number % 254 + 1}.0/24"


def load_specs() -> Path | None:
    folder = os.environ.get(SPECS)
    if not folder:
        print(f"{SPECS} is not set: requests and answers are not held against the providers' descriptions", file=sys.stderr)
        return None
    path = Path(folder)
    for file in (Linode.spec_file, Hetzner.spec_file, DigitalOcean.spec_file, Vultr.spec_file):
        if not (path / file).is_file():
            sys.exit(f"{SPECS} is set, but there is no {path / file}")
    return path


async def main() -> None:
    chosen = arguments()
    if chosen.reap:
        for instance in reap():
            print(f"removed the machines of {instance}")
        return
    specs = load_specs()
    machines = None
    if chosen.mode == "docker":
        machines = Machines(addresses=chosen.addresses, publish=chosen.publish, init=chosen.init)
    world = World(machines)
    clouds = Clouds(world, specs)
    app = web.Application(client_max_size=1 << 20)
    Control(clouds).add_to(app)
    app.router.add_route("*", "/{provider:linode|hetzner|digitalocean|vultr}/{path:.*}", clouds.handle)
    # Nobody is waited for at the end: whoever ends this wants it gone.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", chosen.port).start()

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    if chosen.until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), lambda: os.read(sys.stdin.fileno(), 4096) or ended.set())
    print(f"listening http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await ended.wait()
    await runner.cleanup()
    if machines is not None:
        await world.close()


if __name__ == "__main__":
    asyncio.run(main())
