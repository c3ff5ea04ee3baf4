"""Linode's API v4, as much of it as a client that rents hosts by the hour may need.

Its own words: a host is a linode, labels are unique and 3 to 64 characters, tags have no values, user data is base64,
lists are filtered by the header X-Filter, and times are UTC without saying so.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import re
from pathlib import Path
from typing import Any

from linode_spec import LinodeSpec
from provider import Answer, Call, Provider, Refusal, page_of, whole
from world import BOOTING, LEAVING, OFF, PROVISIONING, RUNNING, Host, Thing, now

STATUS = {PROVISIONING: "provisioning", BOOTING: "booting", RUNNING: "running", OFF: "offline", LEAVING: "deleting"}
LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9]|[-_.](?![-_.]))*[A-Za-z0-9]")
# region: (country, has it the metadata service that user data needs)
REGIONS = {
    "us-east": ("us", True),
    "us-ord": ("us", True),
    "eu-central": ("de", True),
    "nl-ams": ("nl", True),
    "gb-lon": ("gb", True),
    "jp-osa": ("jp", True),
    "br-gru": ("br", True),
    "ap-west": ("in", False),
}
# type: (class, cpus, memory MB, disk MB, transfer GB, hourly, monthly)
TYPES = {
    "g6-nanode-1": ("nanode", 1, 1024, 25600, 1000, 0.0075, 5.0),
    "g6-standard-1": ("standard", 1, 2048, 51200, 2000, 0.018, 12.0),
    "g6-standard-2": ("standard", 2, 4096, 81920, 4000, 0.036, 24.0),
    "g6-standard-4": ("standard", 4, 8192, 163840, 5000, 0.072, 48.0),
    "g6-standard-6": ("standard", 6, 16384, 327680, 8000, 0.144, 96.0),
    "g6-dedicated-2": ("dedicated", 2, 4096, 81920, 4000, 0.054, 36.0),
    "g6-dedicated-4": ("dedicated", 4, 8192, 163840, 5000, 0.108, 72.0),
}
DEARER_IN = {"br-gru": 1.4, "jp-osa": 1.0}
SOLD_OUT = {("g6-dedicated-4", "jp-osa"), ("g6-standard-6", "br-gru")}
IMAGES = {"linode/debian12": ("Debian 12", "Debian"), "linode/fedora44": ("Fedora 44", "Fedora"), "linode/debian13": ("Debian 13", "Debian"), "linode/ubuntu24.04": ("Ubuntu 24.04 LTS", "Ubuntu")}


class Linode(Provider):
    name = "linode"
    spec_file = "linode-operations.json"

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        for method, path, handler in (
            ("GET", "/linode/instances", self._list),
            ("POST", "/linode/instances", self._create),
            ("GET", "/linode/instances/{id}", self._view),
            ("DELETE", "/linode/instances/{id}", self._delete),
            ("GET", "/linode/instances/{id}/firewalls", self._firewalls_of_linode),
            ("GET", "/linode/types", self._types),
            ("GET", "/regions", self._regions),
            ("GET", "/regions/availability", self._availability),
            ("GET", "/images", self._images),
            ("GET", "/networking/firewalls", self._firewalls),
            ("POST", "/networking/firewalls", self._firewall_create),
            ("GET", "/networking/firewalls/{id}", self._firewall_view),
            ("DELETE", "/networking/firewalls/{id}", self._delete_thing("firewall")),
            ("GET", "/networking/firewalls/{id}/rules", self._firewall_rules),
            ("PUT", "/networking/firewalls/{id}/rules", self._firewall_set_rules),
            ("POST", "/networking/firewalls/{id}/devices", self._device_create),
            ("GET", "/profile/sshkeys", self._keys),
            ("DELETE", "/profile/sshkeys/{id}", self._delete_thing("ssh_key")),
            ("GET", "/volumes", self._volumes),
            ("DELETE", "/volumes/{id}", self._delete_thing("volume")),
        ):
            self.route(method, path, handler)

    def load_spec(self, path: Path) -> LinodeSpec:
        return LinodeSpec.load_operations(path)

    def refusal(self, refused: Refusal) -> Any:
        reason: dict[str, str] = {"reason": refused.message}
        return {"errors": [{**reason, "field": refused.field} if refused.field else reason]}

    def known_refusal(self, kind: str) -> Refusal:
        return {
            "unauthorized": Refusal(401, "Invalid Token"),
            "denied": Refusal(401, "Your OAuth token is not authorized to use this endpoint."),
            "missing": Refusal(404, "Not found"),
            "busy": Refusal(429, "Too many requests"),
            "broken": Refusal(500, "Internal Server Error"),
            "down": Refusal(503, "Service unavailable"),
            "capacity": Refusal(
                400, "The selected plan is not currently available in this region. Please select another.", field="type"
            ),
            "quota": Refusal(400, "Account Limit reached. Please open a support ticket."),
            "pending": Refusal(400, "Linode busy."),
        }[kind]

    def check(self, call: Call) -> list[str]:
        given = call.headers.get("X-Filter")
        if given is None:
            return []
        try:
            asked = json.loads(given)
        except ValueError:
            return [f"X-Filter is no JSON: {given[:80]}"]
        return self.spec.filter(call.template, asked) if isinstance(self.spec, LinodeSpec) else []

    def default_host(self) -> tuple[str, str, str]:
        return "eu-central", "g6-standard-2", "linode/debian12"

    def blank(self, kind: str) -> dict[str, Any]:
        policies = {"inbound_policy": "DROP", "outbound_policy": "ACCEPT"}
        return {"firewall": {"rules": {"inbound": [], "outbound": [], **policies}, "linodes": []}}.get(kind, {})

    # ----------------------------------------------------------------------------------------- linodes

    def _list(self, call: Call) -> Answer:
        shown = [(host, self._shape(host)) for host in self.listed(call)]
        for host, _ in shown:
            self.world.looked(host)
        return self._page(call, [shape for _, shape in shown])

    def _view(self, call: Call) -> Answer:
        host = self.host(call.params["id"])
        shape = self._shape(host)
        self.world.looked(host)
        return 200, shape

    def _create(self, call: Call) -> Answer:
        body = call.body
        if body["type"] not in TYPES:
            raise Refusal(400, "A valid plan type by that ID was not found", field="type")
        if body["region"] not in REGIONS:
            raise Refusal(400, "region is not valid", field="region")
        if (body["type"], body["region"]) in SOLD_OUT:
            raise self.known_refusal("capacity")
        image = body.get("image")
        if image is not None and image not in IMAGES:
            raise Refusal(400, "image is not valid", field="image")
        if image and not (body.get("root_pass") or body.get("authorized_keys") or body.get("authorized_users")):
            raise Refusal(400, "root_pass is required", field="root_pass")
        label = body.get("label") or f"linode{self.world.new_id(numeric=True)}"
        self._check_label(label)
        if any(one.name == label for one in self.hosts()):
            raise Refusal(400, "Label must be unique among your linodes", field="label")
        tags = body.get("tags") or []
        for tag in tags:
            if not 3 <= len(tag) <= 50:
                raise Refusal(400, "Tag length must be between 3 and 50 characters", field="tags")
        user_data = self._user_data(body)
        if user_data and not REGIONS[body["region"]][1]:
            raise Refusal(400, "Metadata is not available in this region", field="metadata.user_data")
        firewall = body.get("firewall_id")
        if firewall is not None and self.world.thing(self.name, "firewall", str(firewall)) is None:
            raise Refusal(400, "firewall_id is not valid", field="firewall_id")
        host = self.new_host(
            name=label,
            region=body["region"],
            size=body["type"],
            image=image or "",
            tags=list(tags),
            labels={},
            user_data=user_data,
            firewall=None if firewall is None else str(firewall),
        )
        # The one place where Linode leaves this out.
        return 200, {key: value for key, value in self._shape(host).items() if key != "locks"}

    def _delete(self, call: Call) -> Answer:
        self.delete_host(call, call.params["id"])
        return 200, {}

    def _user_data(self, body: dict[str, Any]) -> str:
        given = (body.get("metadata") or {}).get("user_data")
        if not given:
            return ""
        try:
            return base64.b64decode(given, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Refusal(400, "user_data must be base64-encoded", field="metadata.user_data") from error

    def _check_label(self, label: str) -> None:
        if not 3 <= len(label) <= 64 or not LABEL.fullmatch(label):
            raise Refusal(400, "Label must be 3 to 64 letters, digits, and single dashes, dots or underscores", field="label")

    def _shape(self, host: Host) -> dict[str, Any]:
        kind = TYPES[host.size]
        return {
            "id": int(host.id),
            "label": host.name,
            "group": "",
            "status": STATUS[host.phase],
            "created": _time(host.created),
            "updated": _time(host.created),
            "type": host.size,
            "ipv4": [host.address],
            "ipv6": f"2001:db8::{int(host.id) & 0xFFFF:x}/128",
            "image": host.image or None,
            "region": host.region,
            "site_type": "core",
            "specs": {
                "disk": kind[3],
                "memory": kind[2],
                "vcpus": kind[1],
                "gpus": 0,
                "transfer": kind[4],
                "accelerated_devices": 0,
            },
            "alerts": {"cpu": 90, "io": 10000, "network_in": 10, "network_out": 10, "transfer_quota": 80},
            "backups": {
                "enabled": False,
                "available": False,
                "schedule": {"day": None, "window": None},
                "last_successful": None,
            },
            "hypervisor": "kvm",
            "watchdog_enabled": True,
            "tags": host.tags,
            "host_uuid": f"{int(host.id):040x}",
            "has_user_data": bool(host.user_data),
            "placement_group": None,
            "disk_encryption": "enabled",
            "lke_cluster_id": None,
            "capabilities": [],
            "interface_generation": "legacy_config",
            "maintenance_policy": "linode/migrate",
            "locks": [],
        }

    # ----------------------------------------------------------------------------------- what there is

    def _types(self, call: Call) -> Answer:
        shapes = []
        for id, (family, cpus, memory, disk, transfer, hourly, monthly) in TYPES.items():
            dearer = [
                {"id": region, "hourly": round(hourly * by, 4), "monthly": round(monthly * by, 2)}
                for region, by in DEARER_IN.items()
            ]
            backups = {"price": {"hourly": 0.004, "monthly": 2.5}, "region_prices": []}
            shapes.append(
                {
                    "id": id,
                    "label": f"{family.title()} {memory // 1024}GB",
                    "price": {"hourly": hourly, "monthly": monthly},
                    "region_prices": dearer,
                    "addons": {"backups": backups},
                    "memory": memory,
                    "disk": disk,
                    "transfer": transfer,
                    "vcpus": cpus,
                    "gpus": 0,
                    "network_out": transfer,
                    "class": family,
                    "successor": None,
                    "accelerated_devices": 0,
                }
            )
        return self._page(call, shapes)

    def _regions(self, call: Call) -> Answer:
        shapes = [
            {
                "id": id,
                "label": id,
                "country": country,
                "capabilities": ["Linodes", "Cloud Firewall", "Block Storage", *(["Metadata"] if metadata else [])],
                "monitors": {"alerts": [], "metrics": []},
                "status": "ok",
                "resolvers": {"ipv4": "192.0.2.53", "ipv6": "2001:db8::53"},
                "placement_group_limits": {"maximum_pgs_per_customer": 100, "maximum_linodes_per_pg": 5},
                "site_type": "core",
            }
            for id, (country, metadata) in REGIONS.items()
        ]
        return self._page(call, shapes)

    def _availability(self, call: Call) -> Answer:
        shapes = [
            {"region": region, "plan": plan, "available": (plan, region) not in SOLD_OUT}
            for region in REGIONS
            for plan in TYPES
        ]
        # This one answers without pages, whatever its description says.
        return self._page(call, shapes)

    def _images(self, call: Call) -> Answer:
        shapes = [
            {
                "id": id,
                "label": label,
                "description": "",
                "vendor": vendor,
                "type": "manual",
                "size": 2500,
                "total_size": 2500,
                "created": "2025-01-01T00:00:00",
                "updated": "2025-01-01T00:00:00",
                "created_by": "linode",
                "deprecated": False,
                "is_public": True,
                "status": "available",
                "capabilities": ["cloud-init", "distributed-sites"],
                "eol": "2028-06-30T04:00:00",
                "expiry": None,
                "tags": [],
                "regions": [],
            }
            for id, (label, vendor) in IMAGES.items()
        ]
        return self._page(call, shapes)

    # --------------------------------------------------------------------------------------- firewalls

    def rules(self, firewall: Thing) -> list[tuple[str, str]]:
        told = firewall.data["rules"]
        opened = [(r["protocol"], r.get("ports") or "") for r in told["inbound"] if r["action"] == "ACCEPT"]
        return [*opened, ("TCP", ""), ("UDP", "")] if told["inbound_policy"] == "ACCEPT" else opened

    def covers(self, firewall: Thing, host: Host) -> bool:
        return host.id in firewall.data["linodes"]

    def _firewalls(self, call: Call) -> Answer:
        return self._page(call, [self._firewall(one) for one in self.world.of(self.name, "firewall")])

    def _firewall_view(self, call: Call) -> Answer:
        return 200, self._firewall(self.thing("firewall", call.params["id"]))

    def _firewall_rules(self, call: Call) -> Answer:
        return 200, {**self.thing("firewall", call.params["id"]).data["rules"], "version": 1, "fingerprint": "0badcafe"}

    def _firewalls_of_linode(self, call: Call) -> Answer:
        host = self.host(call.params["id"])
        return self._page(call, [self._firewall(one) for one in self.firewalls_of(host)])

    def _firewall_create(self, call: Call) -> Answer:
        body = call.body
        label = body["label"]
        if not 3 <= len(label) <= 32 or not LABEL.fullmatch(label):
            raise Refusal(400, "Label must be 3 to 32 letters, digits, dashes, dots or underscores", field="label")
        if any(one.name == label for one in self.world.of(self.name, "firewall")):
            raise Refusal(400, "Label must be unique among your firewalls", field="label")
        given = body["rules"]
        self._check_rules(given)
        linodes = [str(one) for one in (body.get("devices") or {}).get("linodes", [])]
        for one in linodes:
            self.host(one)
        rules = {"inbound": [], "outbound": [], **given}
        thing = Thing(
            "firewall",
            self.name,
            self.world.new_id(numeric=True),
            label,
            list(body.get("tags") or []),
            {},
            now(),
            {"rules": rules, "linodes": linodes},
        )
        self.world.things.append(thing)
        return 200, self._firewall(thing)

    def _firewall_set_rules(self, call: Call) -> Answer:
        thing = self.thing("firewall", call.params["id"])
        self._check_rules(call.body)
        thing.data["rules"] = {"inbound": [], "outbound": [], **call.body}
        return self._firewall_rules(call)

    def _check_rules(self, given: dict[str, Any]) -> None:
        for policy in ("inbound_policy", "outbound_policy"):
            if given.get(policy) not in ("ACCEPT", "DROP"):
                raise Refusal(400, f"{policy} must be ACCEPT or DROP", field=f"rules.{policy}")
        for rule in [*given.get("inbound", []), *given.get("outbound", [])]:
            self._check_rule(rule)

    def _check_rule(self, rule: dict[str, Any]) -> None:
        if rule.get("action") not in ("ACCEPT", "DROP"):
            raise Refusal(400, "action must be ACCEPT or DROP", field="rules.inbound.action")
        if rule.get("protocol") not in ("TCP", "UDP", "ICMP", "IPENCAP"):
            raise Refusal(400, "protocol must be TCP, UDP, ICMP or IPENCAP", field="rules.inbound.protocol")
        addresses = rule.get("addresses") or {}
        if not (addresses.get("ipv4") or addresses.get("ipv6")):
            raise Refusal(400, "addresses must name a network", field="rules.inbound.addresses")
        ports = rule.get("ports") or ""
        if len(ports.split(",")) > 15:
            raise Refusal(400, "ports may hold 15 pieces", field="rules.inbound.ports")
        if not 3 <= len(rule.get("label", "abc")) <= 32:
            raise Refusal(400, "Label must be 3 to 32 characters", field="rules.inbound.label")

    def _device_create(self, call: Call) -> Answer:
        thing = self.thing("firewall", call.params["id"])
        if call.body["type"] != "linode":
            raise Refusal(400, "type must be linode", field="type")
        host = self.host(str(call.body["id"]))
        if host.id not in thing.data["linodes"]:
            thing.data["linodes"].append(host.id)
        entity = {"id": int(host.id), "type": "linode", "label": host.name, "url": f"/v4/linode/instances/{host.id}"}
        return 200, {
            "id": int(self.world.new_id(numeric=True)),
            "created": _time(now()),
            "updated": _time(now()),
            "entity": {**entity, "parent_entity": None},
        }

    def _firewall(self, thing: Thing) -> dict[str, Any]:
        attached = [host for host in self.hosts_quietly() if thing.id == host.firewall or self.covers(thing, host)]
        return {
            "id": int(thing.id),
            "label": thing.name,
            "created": _time(thing.created),
            "updated": _time(thing.created),
            "status": "enabled",
            "tags": thing.tags,
            "rules": {**thing.data["rules"], "version": 1, "fingerprint": "0badcafe"},
            "entities": [
                {
                    "id": int(host.id),
                    "type": "linode",
                    "label": host.name,
                    "url": f"/v4/linode/instances/{host.id}",
                    "parent_entity": None,
                }
                for host in attached
            ],
        }

    # ------------------------------------------------------------------------------- keys and volumes

    def _keys(self, call: Call) -> Answer:
        return self._page(
            call,
            [
                {"id": int(one.id), "label": one.name, "created": _time(one.created), "ssh_key": one.data.get("key", "")}
                for one in self.world.of(self.name, "ssh_key")
            ],
        )

    def _volumes(self, call: Call) -> Answer:
        return self._page(
            call,
            [
                {
                    "id": int(one.id),
                    "label": one.name,
                    "created": _time(one.created),
                    "updated": _time(one.created),
                    "status": "active",
                    "size": 20,
                    "region": "eu-central",
                    "linode_id": None,
                    "linode_label": None,
                    "filesystem_path": f"/dev/disk/by-id/scsi-0Linode_Volume_{one.name}",
                    "tags": one.tags,
                    "hardware_type": "nvme",
                    "encryption": "disabled",
                    "io_ready": False,
                    "locks": [],
                }
                for one in self.world.of(self.name, "volume")
            ],
        )

    def _delete_thing(self, kind: str) -> Any:
        def handler(call: Call) -> Answer:
            self.forget(kind, call.params["id"])
            return 200, {}

        return handler

    # ------------------------------------------------------------------------------------------- pages

    def _page(self, call: Call, rows: list[dict[str, Any]]) -> Answer:
        asked = json.loads(call.headers.get("X-Filter") or "{}")
        rows = [row for row in rows if _fits(row, asked)]
        size = whole(call.query.get("page_size", ""), 100)
        page = whole(call.query.get("page", ""), 1)
        shown, pages = page_of(rows, size, page)
        if page > pages:
            raise Refusal(404, "Not found")
        return 200, {"data": shown, "page": page, "pages": pages, "results": len(rows)}


def _fits(row: dict[str, Any], asked: dict[str, Any]) -> bool:
    for name, wanted in asked.items():
        if name == "+and":
            good = all(_fits(row, one) for one in wanted)
        elif name == "+or":
            good = any(_fits(row, one) for one in wanted)
        elif name.startswith("+"):
            good = True
        else:
            value = row.get(name)
            if isinstance(wanted, dict):
                good = all(_compares(value, operator, other) for operator, other in wanted.items())
            else:
                good = wanted in value if isinstance(value, list) else value == wanted
        if not good:
            return False
    return True


def _compares(value: Any, operator: str, other: Any) -> bool:
    match operator:
        case "+contains":
            return any(other in one for one in value) if isinstance(value, list) else other in str(value)
        case "+neq":
            return value != other
        case "+gt" | "+gte" | "+lt" | "+lte":
            return {"+gt": value > other, "+gte": value >= other, "+lt": value < other, "+lte": value <= other}[operator]
        case _:
            raise Refusal(400, f"Cannot filter with {operator}")


def _time(at: datetime.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S")
