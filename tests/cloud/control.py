"""What a test says to the stand-in, under /_control, in JSON:

    POST   fail                 a rule of faults.py, or a list of them: how the next requests fail
    DELETE fail                 no more failures; what struck as `late` is carried out now
    GET    violations           what did not keep to a provider's description
    GET    requests             every request so far: provider, method, path, status, failure
    GET    hosts                every host that ever was, with container, address, created, deleted
    GET    things               firewalls, keys and volumes that exist
    POST   hosts                plants a host, or with `kind` a firewall, ssh_key, volume or primary_ip, that nobody has
                                asked for: {provider, name, tags, labels, region, size, kind}
    POST   hosts/ID/die         its machine ends without a word; {"shown": "off" | "running" | "gone"} afterwards

What cannot be done is status 422 with a sentence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from faults import Rule
from machines import MachineError
from provider import EVERY_PORT, numbers
from world import GONE, OFF, RUNNING, Host, Thing

if TYPE_CHECKING:
    from standin import Clouds


class Control:
    def __init__(self, clouds: Clouds) -> None:
        self._clouds = clouds

    def add_to(self, app: web.Application) -> None:
        for method, path, handle in (
            ("POST", "fail", self._fail),
            ("DELETE", "fail", self._heal),
            ("GET", "violations", self._violations),
            ("GET", "requests", self._requests),
            ("GET", "hosts", self._hosts),
            ("GET", "things", self._things),
            ("POST", "hosts", self._plant),
            ("POST", "hosts/{id}/die", self._die),
        ):
            app.router.add_route(method, f"/_control/{path}", _endpoint(handle))

    async def _fail(self, asked: Any, _: str) -> Any:
        rules = [Rule.parse(one) for one in (asked if isinstance(asked, list) else [asked])]
        self._clouds.rules.rules += rules
        return {"rules": len(self._clouds.rules.rules)}

    async def _heal(self, _: Any, __: str) -> Any:
        self._clouds.rules.rules.clear()
        for do in self._clouds.late:
            do()
        self._clouds.late.clear()
        return {}

    async def _violations(self, _: Any, __: str) -> Any:
        return self._clouds.violations

    async def _requests(self, _: Any, __: str) -> Any:
        return self._clouds.requests

    async def _hosts(self, _: Any, __: str) -> Any:
        return [_host(one) for one in self._clouds.world.hosts]

    async def _things(self, _: Any, __: str) -> Any:
        return [{**_thing(one), "open": self._open(one)} for one in self._clouds.world.things]

    def _open(self, thing: Thing) -> list[str]:
        """What a firewall lets in, as `27100/udp`; `all/udp` where every port is open."""
        if thing.kind != "firewall":
            return []
        told = set()
        for protocol, ports in self._clouds.providers[thing.provider].rules(thing):
            found = numbers(ports)
            names = ["all"] if len(found) == EVERY_PORT else found
            told |= {f"{name}/{protocol.lower()}" for name in names}
        return sorted(told)

    async def _plant(self, asked: Any, _: str) -> Any:
        made = self._clouds.providers[asked["provider"]].plant(asked)
        return _host(made) if isinstance(made, Host) else _thing(made)

    async def _die(self, asked: Any, id: str) -> Any:
        host = next((one for one in self._clouds.world.hosts if one.id == id), None)
        if host is None or host.phase == GONE:
            raise ValueError(f"there is no host {id}")
        shown = (asked or {}).get("shown", OFF)
        if shown not in (OFF, RUNNING, GONE):
            raise ValueError(f"{shown!r} is none of off, running, gone")
        await self._clouds.world.die(host, shown)
        return _host(host)


def _endpoint(handle: Callable[[Any, str], Awaitable[Any]]) -> Any:
    async def endpoint(request: web.Request) -> web.Response:
        try:
            asked = await request.json() if request.can_read_body else None
            return web.json_response(await handle(asked, request.match_info.get("id", "")))
        except (ValueError, TypeError, KeyError, MachineError) as refused:
            missing = f"missing or unknown {refused}" if isinstance(refused, KeyError) else str(refused)
            return web.json_response({"error": missing}, status=422)

    return endpoint


def _host(host: Host) -> dict[str, Any]:
    return {
        "provider": host.provider,
        "id": host.id,
        "name": host.name,
        "phase": host.phase,
        "address": host.address,
        "container": host.container,
        "tags": host.tags,
        "labels": host.labels,
        "region": host.region,
        "size": host.size,
        "image": host.image,
        "firewall": host.firewall,
        "created": host.created.isoformat(),
        "deleted": host.deleted and host.deleted.isoformat(),
        "trouble": host.trouble,
    }


def _thing(thing: Thing) -> dict[str, Any]:
    return {
        "provider": thing.provider,
        "kind": thing.kind,
        "id": thing.id,
        "name": thing.name,
        "tags": thing.tags,
        "labels": thing.labels,
        "data": thing.data,
    }
