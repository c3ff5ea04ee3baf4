"""The machines behind the stand-in's hosts: Docker containers in which the real cloud-init reads the user data and the
real sshd answers, each on a loopback address of its own. Not in here: what a provider says about them.

Every container carries the label `spawnpoint.standin=INSTANCE`, where INSTANCE begins with the stand-in's process id, so
that what a killed stand-in left can be told from what a living one uses.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
import os
import socket
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

LABEL = "spawnpoint.standin"
IMAGES = {"plain": "spawnpoint-test/host:1", "systemd": "spawnpoint-test/host-systemd:1"}
# The toy, OpenTTD (game and admin), OpenArena, SuperTuxKart, and SSH. Docker cannot add ports to a living container.
PUBLISH = "22/tcp,27100/udp,3979/tcp,3979/udp,3977/tcp,27960/udp,2759/udp"
BOOT_TIMEOUT_S = 120.0
LOOK_EVERY_S = 0.1
SEED = "var/lib/cloud/seed/nocloud"

# A boothook runs before everything else of cloud-init, at every boot. A password is made once.
EXPIRES_ROOT = """#cloud-boothook
#!/bin/sh
[ -e /var/lib/root-was-expired ] && exit 0
chage -d 0 root && touch /var/lib/root-was-expired
"""


class MachineError(Exception):
    """Docker could not do it; the text is Docker's."""


class Machines:
    def __init__(self, *, addresses: str, publish: str, init: str) -> None:
        self.instance = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._image = IMAGES[init]
        self._init = init
        self._publish = parse_ports(publish)
        self._addresses = _hosts(ipaddress.IPv4Network(addresses))

    def address(self) -> str:
        """The next free one. Addresses are not given twice, so that a stale entry anywhere is not a machine."""
        return str(next(self._addresses))

    async def start(
        self,
        name: str,
        host: str,
        address: str,
        user_data: str,
        open_ports: set[tuple[int, str]] | None,
        root_expired: bool,
    ) -> str:
        """Makes a machine and gives its container's id. `open_ports`: what the provider's firewall lets in; `None`: all.
        `root_expired`: from its first boot on root must change its password, which sshd asks of who comes with a key too.
        """
        asked = ["create", "--hostname", name, "--label", f"{LABEL}={self.instance}", "--label", f"{LABEL}.host={host}"]
        for port, protocol in self._publish:
            if open_ports is None or (port, protocol) in open_ports:
                asked += ["--publish", f"{address}:{port}:{port}/{protocol}"]
        if self._init == "systemd":
            # Not --privileged: a daemon that runs in a container itself may not hand out every capability.
            asked += ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--tmpfs", "/run", "--tmpfs"]
            asked += ["/run/lock", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:ro"]
        asked += ["--cap-add", "NET_ADMIN"]
        container = (await docker(*asked, self._image)).strip()
        meta = json.dumps({"instance-id": f"{self.instance}-{host}", "local-hostname": name})
        vendor_data = EXPIRES_ROOT if root_expired else ""
        files = {"user-data": user_data, "meta-data": meta, "vendor-data": vendor_data}
        seed = _tar({f"{SEED}/{file}": text for file, text in files.items()})
        await docker("cp", "-", f"{container}:/", stdin=seed)
        await docker("start", container)
        return container

    async def booted(self, container: str, address: str) -> None:
        """Waits until sshd greets, or cloud-init is through where the firewall hides it."""
        deadline = asyncio.get_running_loop().time() + BOOT_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            if await _greets(address):
                return
            state = await docker("inspect", "--format", "{{.State.Running}}", container)
            if state.strip() != "true":
                logs = await docker("logs", "--tail", "20", container)
                raise MachineError(f"the machine went down while it booted: {logs}")
            await asyncio.sleep(LOOK_EVERY_S)
        raise MachineError(f"no sshd answered on {address} in {BOOT_TIMEOUT_S:.0f} s")

    async def kill(self, container: str) -> None:
        """Fine when it has ended before."""
        if await docker("inspect", "--format", "{{.State.Running}}", container) == "true\n":
            await docker("kill", container)

    async def remove(self, container: str) -> None:
        await docker("rm", "--force", "--volumes", container)

    async def remove_all(self) -> None:
        remove_labelled(self.instance)


def parse_ports(text: str) -> list[tuple[int, str]]:
    """`22/tcp,3979/udp`."""
    ports = []
    for one in filter(None, text.split(",")):
        number, _, protocol = one.strip().partition("/")
        if protocol not in ("tcp", "udp"):
            raise ValueError(f"{one!r} is not like 3979/udp")
        ports.append((int(number), protocol))
    return ports


def reap() -> list[str]:
    """Removes the machines of stand-ins that live no more; gives their instances."""
    listed = subprocess.run(
        ["docker", "ps", "--all", "--filter", f"label={LABEL}", "--format", f'{{{{.Label "{LABEL}"}}}}'],
        check=True,
        capture_output=True,
        text=True,
    )
    dead = sorted({one for one in listed.stdout.split() if not _lives(one)})
    for instance in dead:
        remove_labelled(instance)
    return dead


def remove_labelled(instance: str) -> None:
    """Blocking, so that it works while everything else ends."""
    found = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}={instance}"], capture_output=True, text=True, check=True
    ).stdout.split()
    if found:
        subprocess.run(["docker", "rm", "--force", "--volumes", *found], capture_output=True, check=False)


async def docker(*arguments: str, stdin: bytes | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        "docker",
        *arguments,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    if process.returncode != 0:
        raise MachineError(f"docker {arguments[0]}: {err.decode(errors='replace').strip()}")
    return out.decode(errors="replace") + (err.decode(errors="replace") if arguments[0] == "logs" else "")


async def _greets(address: str) -> bool:
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(address, 22), 1.0)
    except (OSError, TimeoutError):
        return False
    try:
        # Docker's proxy accepts before anybody listens inside: only the greeting counts.
        return (await asyncio.wait_for(reader.read(4), 1.0)) == b"SSH-"
    except (OSError, TimeoutError):
        return False
    finally:
        writer.transport.abort()


def _lives(instance: str) -> bool:
    try:
        return b"standin.py" in Path(f"/proc/{int(instance.partition('-')[0])}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


def _hosts(network: ipaddress.IPv4Network) -> Iterator[ipaddress.IPv4Address]:
    if not network.is_loopback:
        raise ValueError(f"{network} is not of 127.0.0.0/8")
    for address in network.hosts():
        if address.packed[-1] not in (0, 255) and _free(str(address)):
            yield address
    raise MachineError(f"no address of {network} is left")


def _free(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, 22)) != 0


def _tar(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o600
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
