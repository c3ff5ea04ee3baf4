"""What the four providers have in common: routes, pages, refusals, and the way from a request to a host. Each
provider's file adds its paths and its words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openapi import Spec
from world import GONE, RUNNING, Host, Thing, World, now


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, str]
    headers: Any
    body: Any
    params: dict[str, str] = field(default_factory=dict)
    template: str = ""
    # Set by the failure half_delete: how many looks still show a deleted host.
    leaving_looks: int | None = 1
    # Set by the failure stale_list: a list shows what is gone too.
    shows_gone: bool = False


class Refusal(Exception):
    """The provider says no. `code` is the provider's own word for it, where it has one."""

    def __init__(self, status: int, message: str, code: str = "", field: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.field = status, message, code, field


class WordsUnknown(Exception):
    """The stand-in was told to refuse in a way that we have not seen this provider refuse."""


Answer = tuple[int, Any]
Handler = Callable[[Call], Answer]


class Provider:
    name: str
    # The file of its description.
    spec_file: str
    numeric_ids = True

    def __init__(self, world: World) -> None:
        self.world = world
        self._routes: list[tuple[str, str, re.Pattern[str], Handler]] = []
        self.spec: Spec | None = None

    # ------------------------------------------------------------ what each provider says in its own way

    def load_spec(self, path: Path) -> Spec:
        return Spec.load(path)

    def refusal(self, refused: Refusal) -> Any:
        """The body of an error; `None` where it has none."""
        raise NotImplementedError

    def known_refusal(self, kind: str) -> Refusal:
        """What it says for `capacity`, `quota`, `denied`, `pending`, `unauthorized`, `missing`, `busy`, `broken`, `down`."""
        raise NotImplementedError

    def refusal_with(self, status: int) -> Refusal:
        """What it says with this status."""
        kinds = {401: "unauthorized", 403: "denied", 404: "missing", 429: "busy", 500: "broken", 503: "down"}
        refused = self.known_refusal(kinds[status]) if status in kinds else None
        if refused is None or refused.status != status:
            raise WordsUnknown(f"nobody knows its words for a {status}")
        return refused

    def check(self, call: Call) -> list[str]:
        """More that is wrong with a request than its description can say."""
        return []

    # ------------------------------------------------------------------------------------------ routes

    def route(self, method: str, template: str, handler: Handler) -> None:
        # The most literal path is added first.
        pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template)) + "$")
        self._routes.append((method, template, pattern, handler))

    def find(self, call: Call) -> Handler | None:
        for method, template, pattern, handler in self._routes:
            if method == call.method and (match := pattern.match(call.path)):
                call.params, call.template = match.groupdict(), template
                return handler
        return None

    # ------------------------------------------------------------------------------------------- hosts

    def hosts(self) -> list[Host]:
        """Those that are shown now."""
        return [host for host in self.world.hosts if host.provider == self.name and self.world.look(host)]

    def listed(self, call: Call) -> list[Host]:
        """What a list shows; one that lags behind has hosts that are gone as well, as if they ran."""
        shown = self.hosts()
        gone = [host for host in self.world.hosts if host.provider == self.name and host.phase == GONE]
        return shown + [replace(host, phase=RUNNING) for host in gone if call.shows_gone]

    def hosts_quietly(self) -> list[Host]:
        """The same, and it does not count as a look: somebody asked for something else."""
        return [host for host in self.world.hosts if host.provider == self.name and host.phase != GONE]

    def host(self, id: str) -> Host:
        found = next((h for h in self.world.hosts if (h.provider, h.id) == (self.name, id)), None)
        if found is None or not self.world.look(found):
            raise self.known_refusal("missing")
        return found

    def new_host(self, **said: Any) -> Host:
        """A host as asked for, on the machine that it will have."""
        host = Host(
            provider=self.name,
            id=self.world.new_id(numeric=self.numeric_ids),
            created=now(),
            address=self.world.address(),
            **said,
        )
        ports = None if host.firewall is None and not self.firewalls_of(host) else self.open_ports(host)
        return self.world.create(host, ports)

    def delete_host(self, call: Call, id: str) -> Host:
        host = self.host(id)
        self.world.delete(host, call.leaving_looks)
        return host

    # --------------------------------------------------------------------------------------- firewalls

    def firewalls_of(self, host: Host) -> list[Thing]:
        return [one for one in self.world.of(self.name, "firewall") if one.id == host.firewall or self.covers(one, host)]

    def covers(self, firewall: Thing, host: Host) -> bool:
        """Whether the firewall itself says that it is for this host."""
        return False

    def rules(self, firewall: Thing) -> list[tuple[str, str]]:
        """Its rules for what comes in: the protocol, and ports as the provider writes them."""
        raise NotImplementedError

    def open_ports(self, host: Host) -> set[tuple[int, str]]:
        opened: set[tuple[int, str]] = set()
        for firewall in self.firewalls_of(host):
            for protocol, ports in self.rules(firewall):
                opened |= {(port, protocol.lower()) for port in numbers(ports)}
        return opened

    def plant(self, asked: dict[str, Any]) -> Host | Thing:
        """Something that nobody asked for through the API."""
        kind = asked.get("kind", "host")
        tags, labels = list(asked.get("tags", [])), dict(asked.get("labels", {}))
        id = self.world.new_id(numeric=self.numeric_ids)
        if kind == "host":
            default = self.default_host()
            host = Host(
                provider=self.name,
                id=id,
                name=asked["name"],
                region=asked.get("region", default[0]),
                size=asked.get("size", default[1]),
                image=default[2],
                tags=tags,
                labels=labels,
                user_data="",
                firewall=None,
                created=now(),
                address=self.world.address(),
            )
            return self.world.plant(host)
        thing = Thing(kind, self.name, self.new_thing_id(kind), asked["name"], tags, labels, now(), self.blank(kind))
        self.world.things.append(thing)
        return thing

    def default_host(self) -> tuple[str, str, str]:
        """Region, size and image."""
        raise NotImplementedError

    def new_thing_id(self, kind: str) -> str:
        return self.world.new_id(numeric=self.numeric_ids)

    def blank(self, kind: str) -> dict[str, Any]:
        """What a planted thing holds."""
        return {}

    # ------------------------------------------------------------------------------------------ things

    def thing(self, kind: str, id: str) -> Thing:
        found = self.world.thing(self.name, kind, id)
        if found is None:
            raise self.known_refusal("missing")
        return found

    def forget(self, kind: str, id: str) -> Thing:
        found = self.thing(kind, id)
        self.world.things.remove(found)
        return found


# A rule that names no port opens so many.
EVERY_PORT = 65535


def numbers(ports: str) -> set[int]:
    """`22`, `22,80`, `27000-27100`, `27000:27100`, `all`, `0`, or nothing, for all of them."""
    if ports in ("", "all", "any", "0"):
        return set(range(1, EVERY_PORT + 1))
    found: set[int] = set()
    for one in ports.replace(" ", "").split(","):
        first, _, last = one.replace(":", "-").partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def page_of(rows: list[Any], size: int, page: int) -> tuple[list[Any], int]:
    """One page of these, counted from 1, and the number of the last."""
    return rows[(page - 1) * size : page * size], max(1, -(-len(rows) // size))


def whole(text: str, otherwise: int) -> int:
    return int(text) if text else otherwise

