"""What exists in the stand-in's clouds: hosts with their lives, firewalls, keys and volumes. Providers say it in their own
words; this file has none of them.

A host's life: provisioning, booting, running, and after a delete leaving and gone. With machines the steps are real;
without (`--mode none`) a host takes one step each time that somebody looks at it, so that nothing waits for a clock.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import sys
import uuid
from dataclasses import dataclass, field
from typing import Any

from machines import MachineError, Machines

PROVISIONING, BOOTING, RUNNING, OFF, LEAVING, GONE = "provisioning", "booting", "running", "off", "leaving", "gone"
FIRST_ID = 7_100_001
FOREVER = None


@dataclass
class Host:
    provider: str
    id: str
    name: str
    region: str
    size: str
    image: str
    tags: list[str]
    labels: dict[str, str]
    user_data: str
    firewall: str | None
    created: datetime.datetime
    address: str
    phase: str = PROVISIONING
    container: str | None = None
    deleted: datetime.datetime | None = None
    trouble: str | None = None
    # Root has to change its password before it may do anything.
    root_expired: bool = False
    # How often it is still shown after its end was accepted; None: for ever.
    leaving_looks: int | None = 1
    machine_gone: bool = True
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


@dataclass
class Thing:
    """A firewall, a key, a volume: what the provider holds besides hosts."""

    kind: str
    provider: str
    id: str
    name: str
    tags: list[str]
    labels: dict[str, str]
    created: datetime.datetime
    data: dict[str, Any]


class World:
    def __init__(self, machines: Machines | None) -> None:
        self.machines = machines
        self.hosts: list[Host] = []
        self.things: list[Thing] = []
        self._ids = itertools.count(FIRST_ID)
        self._addresses = itertools.count(1)

    def new_id(self, *, numeric: bool) -> str:
        return str(next(self._ids)) if numeric else str(uuid.uuid4())

    def create(self, host: Host, open_ports: set[tuple[int, str]] | None) -> Host:
        self.hosts.append(host)
        if self.machines is not None:
            host.tasks.append(asyncio.create_task(self._boot(host, self.machines, open_ports)))
        return host

    def plant(self, host: Host) -> Host:
        """A host that runs already and has no machine: somebody else's, or one that was forgotten."""
        host.phase = RUNNING
        self.hosts.append(host)
        return host

    def address(self) -> str:
        if self.machines is not None:
            return self.machines.address()
        n = next(self._addresses)
        # TEST-NET-2 and more: nobody answers there.
        return f"198.{18 + (n >> 16)}.{(n >> 8) & 255}.{n & 255}"

    async def _boot(self, host: Host, machines: Machines, open_ports: set[tuple[int, str]] | None) -> None:
        try:
            container = await machines.start(host.name, host.id, host.address, host.user_data, open_ports, host.root_expired)
            host.container = container
            if host.phase == PROVISIONING:
                host.phase = BOOTING
                if open_ports is None or (22, "tcp") in open_ports:
                    await machines.booted(container, host.address)
            if host.phase == BOOTING:
                host.phase = RUNNING
        except MachineError as error:
            # A provider shows a host that does not come up, and says nothing. The control side does.
            host.trouble = str(error)
            print(f"{host.provider} host {host.id}: {error}", file=sys.stderr, flush=True)

    def look(self, host: Host) -> bool:
        """Somebody asks for this host: is it still there? Time passes by being looked at."""
        if host.phase == GONE:
            return False
        if host.phase == LEAVING:
            if host.leaving_looks is FOREVER:
                return True
            if host.leaving_looks <= 0 and host.machine_gone:
                host.phase = GONE
                host.deleted = now()
                return False
            host.leaving_looks -= 1
        return True

    def looked(self, host: Host) -> None:
        """What was seen was shown: without a machine the host goes one step on."""
        if self.machines is None:
            host.phase = {PROVISIONING: BOOTING, BOOTING: RUNNING}.get(host.phase, host.phase)

    def delete(self, host: Host, leaving_looks: int | None) -> None:
        if host.phase in (LEAVING, GONE):
            return
        host.phase = LEAVING
        host.leaving_looks = leaving_looks
        if leaving_looks is not FOREVER and self.machines is not None:
            host.machine_gone = False
            host.tasks.append(asyncio.create_task(self._remove(host, self.machines)))

    async def _remove(self, host: Host, machines: Machines) -> None:
        # A boot under way is let finish its step: its container would be left otherwise.
        for task in host.tasks[:-1]:
            await asyncio.wait([task])
        if host.container is not None:
            try:
                await machines.remove(host.container)
            except MachineError as error:
                host.trouble = str(error)
                return
        host.machine_gone = True

    async def die(self, host: Host, shown: str) -> None:
        """A machine that ends without a word. `shown`: what its provider makes of it."""
        if host.container is not None and self.machines is not None:
            await self.machines.kill(host.container)
        if shown == GONE:
            host.deleted = now()
        host.phase = shown

    async def close(self) -> None:
        """Removes every machine; a boot under way is given up."""
        tasks = [task for host in self.hosts for task in host.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.machines is not None:
            await self.machines.remove_all()

    def of(self, provider: str, kind: str) -> list[Thing]:
        return [one for one in self.things if (one.provider, one.kind) == (provider, kind)]

    def thing(self, provider: str, kind: str, id: str) -> Thing | None:
        return next((one for one in self.of(provider, kind) if one.id == id), None)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
