"""Vultr's API v2, as much of it as a client that rents hosts by the hour may need.

Its own words: ids are UUIDs, user data is base64, lists go on by a cursor, a host has the address 0.0.0.0 at first, a
firewall is a group to which rules are added one by one, and groups have a description instead of name and tags.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from openapi import Spec
from provider import Answer, Call, Provider, Refusal, whole
from world import BOOTING, LEAVING, OFF, PROVISIONING, RUNNING, Host, Thing, now

# phase: (status, power_status, server_status)
STATUS = {
    PROVISIONING: ("pending", "stopped", "none"),
    BOOTING: ("active", "running", "installingbooting"),
    RUNNING: ("active", "running", "ok"),
    OFF: ("active", "stopped", "ok"),
    LEAVING: ("active", "stopped", "locked"),
}
NO_ADDRESS = "0.0.0.0"
REGIONS = {
    "ewr": ("New Jersey", "US", "North America"),
    "fra": ("Frankfurt", "DE", "Europe"),
    "ams": ("Amsterdam", "NL", "Europe"),
    "sgp": ("Singapore", "SG", "Asia"),
}
# plan: (cpus, memory MB, disk GB, bandwidth GB, monthly, type, regions)
PLANS = {
    "vc2-1c-1gb": (1, 1024, 25, 1024, 5, "vc2", tuple(REGIONS)),
    "vc2-1c-2gb": (1, 2048, 55, 2048, 10, "vc2", tuple(REGIONS)),
    "vc2-2c-4gb": (2, 4096, 80, 3072, 20, "vc2", tuple(REGIONS)),
    "vc2-4c-8gb": (4, 8192, 160, 4096, 40, "vc2", tuple(REGIONS)),
    "vc2-6c-16gb": (6, 16384, 320, 5120, 80, "vc2", ("ewr", "fra")),
    "vhf-2c-4gb": (2, 4096, 128, 3072, 24, "vhf", ("ewr", "fra", "sgp")),
}
SOLD_OUT = {("vc2-6c-16gb", "fra"), ("vhf-2c-4gb", "sgp")}
SYSTEMS = {
    2136: ("Debian 12 x64 (bookworm)", "debian"),
    2625: ("Debian 13 x64 (trixie)", "debian"),
    2284: ("Ubuntu 24.04 LTS x64", "ubuntu"),
}
MAX_RULES = 50
# The description gives its failures no form. Its first page does: "All 4xx errors will return a JSON response object with
# an `error` attribute"; of 5xx it says nothing of the kind. The status beside the error is what the API adds.
ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "status": {"type": "integer"}},
    "required": ["error"],
}
FAILURES = {"4XX": {"content": {"application/json": {"schema": ERROR}}}, "5XX": {}}


class Vultr(Provider):
    name = "vultr"
    spec_file = "vultr-swagger.json"
    numeric_ids = False

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        for method, path, handler in (
            ("GET", "/instances", self._list),
            ("POST", "/instances", self._create),
            ("GET", "/instances/{id}", self._view),
            ("DELETE", "/instances/{id}", self._delete),
            ("GET", "/plans", self._plans),
            ("GET", "/regions", self._regions),
            ("GET", "/regions/{id}/availability", self._availability),
            ("GET", "/os", self._systems),
            ("GET", "/firewalls", self._firewalls),
            ("POST", "/firewalls", self._firewall_create),
            ("GET", "/firewalls/{id}", self._firewall_view),
            ("DELETE", "/firewalls/{id}", self._delete_thing("firewall")),
            ("GET", "/firewalls/{id}/rules", self._firewall_rules),
            ("POST", "/firewalls/{id}/rules", self._rule_create),
            ("DELETE", "/firewalls/{id}/rules/{rule}", self._rule_delete),
            ("GET", "/ssh-keys", self._keys),
            ("DELETE", "/ssh-keys/{id}", self._delete_thing("ssh_key")),
            ("GET", "/blocks", self._blocks),
            ("DELETE", "/blocks/{id}", self._delete_thing("volume")),
        ):
            self.route(method, path, handler)

    def load_spec(self, path: Path) -> Spec:
        return Spec.load(path, failures=FAILURES)

    def refusal(self, refused: Refusal) -> Any:
        # Only of its 4xx it says that there is a body.
        return {"error": refused.message, "status": refused.status} if refused.status < 500 else None

    def known_refusal(self, kind: str) -> Refusal:
        return {
            "unauthorized": Refusal(401, "Invalid API token."),
            # Keys have no scopes. What is refused is the machine that they are used from.
            "denied": Refusal(401, "Unauthorized IP address: 192.0.2.7"),
            "missing": Refusal(404, "Not found"),
            "busy": Refusal(429, "Rate limit exceeded"),
            "broken": Refusal(500, "Internal Server Error"),
            "down": Refusal(503, "Service unavailable"),
            "capacity": Refusal(400, "Unable to create server: The selected plan is not available in the selected location."),
            "quota": Refusal(400, "Unable to create server: You have reached the maximum number of instances of your account."),
            "pending": Refusal(400, "Unable to destroy server: Server is currently locked"),
        }[kind]

    def default_host(self) -> tuple[str, str, str]:
        return "fra", "vc2-2c-4gb", "2136"

    def blank(self, kind: str) -> dict[str, Any]:
        return {"firewall": {"rules": []}}.get(kind, {})

    # --------------------------------------------------------------------------------------- instances

    def _list(self, call: Call) -> Answer:
        asked = call.query
        chosen = [
            host
            for host in self.listed(call)
            if ("tag" not in asked or asked["tag"] in host.tags)
            and asked.get("label", host.name) == host.name
            and asked.get("main_ip", host.address) == host.address
            and asked.get("region", host.region) == host.region
        ]
        shapes = [self._instance(host) for host in chosen]
        for host in chosen:
            self.world.looked(host)
        return self._page(call, "instances", shapes)

    def _view(self, call: Call) -> Answer:
        host = self.host(call.params["id"])
        shape = self._instance(host)
        self.world.looked(host)
        return 200, {"instance": shape}

    def _create(self, call: Call) -> Answer:
        body = call.body
        if body["region"] not in REGIONS:
            raise Refusal(400, "Invalid region.")
        if body["plan"] not in PLANS:
            raise Refusal(400, "Invalid plan.")
        if body["region"] not in PLANS[body["plan"]][6] or (body["plan"], body["region"]) in SOLD_OUT:
            raise self.known_refusal("capacity")
        if body.get("os_id") not in SYSTEMS:
            raise Refusal(400, "Invalid OS.")
        group = body.get("firewall_group_id") or None
        if group is not None and self.world.thing(self.name, "firewall", group) is None:
            raise Refusal(400, "Invalid firewall group.")
        user_data = ""
        if body.get("user_data"):
            try:
                user_data = base64.b64decode(body["user_data"], validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as error:
                raise Refusal(400, "Invalid user data. It must be base64 encoded.") from error
        host = self.new_host(
            name=body.get("label") or "",
            region=body["region"],
            size=body["plan"],
            image=str(body["os_id"]),
            tags=list(body.get("tags") or []),
            labels={"hostname": body.get("hostname") or body.get("label") or "vultr"},
            user_data=user_data,
            firewall=group,
        )
        return 202, {"instance": {**self._instance(host), "default_password": "not-for-use"}}

    def _delete(self, call: Call) -> Answer:
        self.delete_host(call, call.params["id"])
        return 204, None

    def _instance(self, host: Host) -> dict[str, Any]:
        plan = PLANS[host.size]
        status, power, server = STATUS[host.phase]
        return {
            "id": host.id,
            "os": SYSTEMS[int(host.image)][0],
            "ram": plan[1],
            "disk": plan[2],
            "main_ip": NO_ADDRESS if host.phase == PROVISIONING else host.address,
            "vcpu_count": plan[0],
            "region": host.region,
            "date_created": host.created.isoformat(),
            "status": status,
            "power_status": power,
            "server_status": server,
            "allowed_bandwidth": plan[3],
            "netmask_v4": "255.255.254.0",
            "gateway_v4": "198.51.100.1",
            "v6_networks": [],
            "hostname": host.labels.get("hostname", host.name),
            "label": host.name,
            "tag": host.tags[0] if host.tags else "",
            "internal_ip": "",
            "kvm": "",
            "os_id": int(host.image),
            "app_id": 0,
            "image_id": "",
            "firewall_group_id": host.firewall or "",
            "features": [],
            "plan": host.size,
            "tags": host.tags,
        }

    # ----------------------------------------------------------------------------------- what there is

    def _plans(self, call: Call) -> Answer:
        wanted = call.query.get("type", "all")
        shapes = [
            {
                "id": id,
                "vcpu_count": cpus,
                "ram": memory,
                "disk": disk,
                "disk_count": 1,
                "bandwidth": bandwidth,
                "monthly_cost": monthly,
                "type": kind,
                "locations": list(regions),
            }
            for id, (cpus, memory, disk, bandwidth, monthly, kind, regions) in PLANS.items()
            if wanted in ("all", kind)
        ]
        return self._page(call, "plans", shapes)

    def _regions(self, call: Call) -> Answer:
        shapes = [
            {"id": id, "city": city, "country": country, "continent": continent, "options": ["ddos_protection"]}
            for id, (city, country, continent) in REGIONS.items()
        ]
        return self._page(call, "regions", shapes)

    def _availability(self, call: Call) -> Answer:
        region = call.params["id"]
        if region not in REGIONS:
            raise Refusal(404, "Invalid region.")
        wanted = call.query.get("type", "all")
        there = [id for id, plan in PLANS.items() if region in plan[6] and (id, region) not in SOLD_OUT]
        return 200, {"available_plans": [id for id in there if wanted in ("all", PLANS[id][5])]}

    def _systems(self, call: Call) -> Answer:
        shapes = [{"id": id, "name": name, "arch": "x64", "family": family} for id, (name, family) in SYSTEMS.items()]
        return self._page(call, "os", shapes)

    # --------------------------------------------------------------------------------------- firewalls

    def rules(self, firewall: Thing) -> list[tuple[str, str]]:
        return [(rule["protocol"], rule["port"]) for rule in firewall.data["rules"] if rule["ip_type"] == "v4"]

    def _firewalls(self, call: Call) -> Answer:
        groups = self.world.of(self.name, "firewall")
        return self._page(call, "firewall_groups", [self._firewall(one) for one in groups])

    def _firewall_view(self, call: Call) -> Answer:
        return 200, {"firewall_group": self._firewall(self.thing("firewall", call.params["id"]))}

    def _firewall_create(self, call: Call) -> Answer:
        description = (call.body or {}).get("description", "")
        id = self.world.new_id(numeric=False)
        thing = Thing("firewall", self.name, id, description, [], {}, now(), {"rules": []})
        self.world.things.append(thing)
        return 201, {"firewall_group": self._firewall(thing)}

    def _firewall(self, thing: Thing) -> dict[str, Any]:
        return {
            "id": thing.id,
            "description": thing.name,
            "date_created": thing.created.isoformat(),
            "date_modified": thing.created.isoformat(),
            "instance_count": sum(host.firewall == thing.id for host in self.hosts_quietly()),
            "rule_count": len(thing.data["rules"]),
            "max_rule_count": MAX_RULES,
        }

    def _firewall_rules(self, call: Call) -> Answer:
        return self._page(call, "firewall_rules", self.thing("firewall", call.params["id"]).data["rules"])

    def _rule_create(self, call: Call) -> Answer:
        thing, body = self.thing("firewall", call.params["id"]), call.body
        if body["ip_type"] not in ("v4", "v6"):
            raise Refusal(400, "Invalid IP type.")
        if body["protocol"].lower() not in ("icmp", "tcp", "udp", "gre", "esp", "ah"):
            raise Refusal(400, "Invalid protocol.")
        if body["protocol"].lower() in ("tcp", "udp") and not body.get("port"):
            raise Refusal(400, "Invalid port.")
        if len(thing.data["rules"]) >= MAX_RULES:
            raise Refusal(400, "This firewall group has too many rules.")
        rule = {
            "id": max((one["id"] for one in thing.data["rules"]), default=0) + 1,
            "type": body["ip_type"],
            "ip_type": body["ip_type"],
            "action": "accept",
            "protocol": body["protocol"].lower(),
            "port": body.get("port", ""),
            "subnet": body["subnet"],
            "subnet_size": body["subnet_size"],
            "source": body.get("source", ""),
            "notes": body.get("notes", ""),
        }
        thing.data["rules"].append(rule)
        return 201, {"firewall_rule": rule}

    def _rule_delete(self, call: Call) -> Answer:
        thing = self.thing("firewall", call.params["id"])
        kept = [rule for rule in thing.data["rules"] if str(rule["id"]) != call.params["rule"]]
        if len(kept) == len(thing.data["rules"]):
            raise self.known_refusal("missing")
        thing.data["rules"] = kept
        return 204, None

    # -------------------------------------------------------------------------------- keys and volumes

    def _keys(self, call: Call) -> Answer:
        shapes = [
            {
                "id": one.id,
                "name": one.name,
                "date_created": one.created.isoformat(),
                "ssh_key": one.data.get("key", "ssh-ed25519 AAAA"),
            }
            for one in self.world.of(self.name, "ssh_key")
        ]
        return self._page(call, "ssh_keys", shapes)

    def _blocks(self, call: Call) -> Answer:
        shapes = [
            {
                "id": one.id,
                "label": one.name,
                "cost": 1,
                "status": "active",
                "size_gb": 10,
                "region": "fra",
                "attached_to_instance": "",
                "date_created": one.created.isoformat(),
                "mount_id": f"fra-{one.id[:8]}",
            }
            for one in self.world.of(self.name, "volume")
        ]
        return self._page(call, "blocks", shapes)

    def _delete_thing(self, kind: str) -> Any:
        def handler(call: Call) -> Answer:
            self.forget(kind, call.params["id"])
            return 204, None

        return handler

    # ------------------------------------------------------------------------------------------- pages

    def _page(self, call: Call, name: str, rows: list[dict[str, Any]]) -> Answer:
        size = whole(call.query.get("per_page", ""), 100)
        if not 1 <= size <= 500:
            raise Refusal(400, "per_page must be from 1 to 500.")
        first = _offset(call.query.get("cursor", ""))
        following = _cursor(first + size) if first + size < len(rows) else ""
        before = _cursor(max(0, first - size)) if first > 0 else ""
        meta = {"total": len(rows), "links": {"next": following, "prev": before}}
        return 200, {name: rows[first : first + size], "meta": meta}


def _cursor(offset: int) -> str:
    return base64.b64encode(f"next__{offset}".encode()).decode()


def _offset(cursor: str) -> int:
    if not cursor:
        return 0
    try:
        return int(base64.b64decode(cursor, validate=True).decode().removeprefix("next__"))
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise Refusal(400, "Invalid cursor.") from error
