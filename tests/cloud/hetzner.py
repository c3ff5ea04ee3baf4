"""Hetzner's cloud API v1, as much of it as a client that rents hosts by the hour may need.

Its own words: labels have values and lists are chosen by a label selector; names are unique; prices are text, in euro;
what takes time comes with an action; a type without capacity is refused with `resource_unavailable`.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

from provider import Answer, Call, Provider, Refusal, page_of, whole
from world import BOOTING, LEAVING, OFF, PROVISIONING, RUNNING, Host, Thing, now

STATUS = {PROVISIONING: "initializing", BOOTING: "starting", RUNNING: "running", OFF: "off", LEAVING: "deleting"}
NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")
LABEL_VALUE = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?)?")
LABEL_KEY = re.compile(r"(?:[a-z0-9A-Z.-]+/)?[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?")
MAX_USER_DATA_BYTES = 32 * 1024
# location: (id, city, country, zone)
LOCATIONS = {
    "fsn1": (1, "Falkenstein", "DE", "eu-central"),
    "nbg1": (2, "Nuremberg", "DE", "eu-central"),
    "hel1": (3, "Helsinki", "FI", "eu-central"),
    "ash": (4, "Ashburn, VA", "US", "us-east"),
    "sin": (6, "Singapore", "SG", "ap-southeast"),
}
EUROPE = ("fsn1", "nbg1", "hel1")
# type: (id, architecture, cpu type, cores, memory GB, disk GB, net hourly, net monthly, locations)
TYPES = {
    "cx23": (114, "x86", "shared", 2, 4.0, 40, "0.0048000000", "2.9900000000", EUROPE),
    "cx33": (115, "x86", "shared", 4, 8.0, 80, "0.0080000000", "4.9900000000", EUROPE),
    "cx43": (116, "x86", "shared", 8, 16.0, 160, "0.0152000000", "9.4900000000", EUROPE),
    "cpx11": (22, "x86", "shared", 2, 2.0, 40, "0.0072000000", "4.4900000000", ("ash", "sin")),
    "cpx21": (23, "x86", "shared", 3, 4.0, 80, "0.0144000000", "8.9900000000", ("ash", "sin")),
    "cax11": (45, "arm", "shared", 2, 4.0, 40, "0.0053000000", "3.2900000000", EUROPE),
    "ccx13": (96, "x86", "dedicated", 2, 8.0, 80, "0.0200000000", "12.4900000000", tuple(LOCATIONS)),
}
SOLD_OUT = {("ccx13", "hel1"), ("cx43", "nbg1")}
IMAGES = {
    (114690387, "debian-12", "x86"): "Debian 12",
    (114690389, "debian-12", "arm"): "Debian 12",
    (310557660, "debian-13", "x86"): "Debian 13",
    (161547269, "ubuntu-24.04", "x86"): "Ubuntu 24.04",
}
VAT = 1.19


class Hetzner(Provider):
    name = "hetzner"
    spec_file = "hcloud.json"

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        for method, path, handler in (
            ("GET", "/servers", self._list),
            ("POST", "/servers", self._create),
            ("GET", "/servers/{id}", self._view),
            ("DELETE", "/servers/{id}", self._delete),
            ("GET", "/actions/{id}", self._action_view),
            ("GET", "/server_types", self._types),
            ("GET", "/pricing", self._pricing),
            ("GET", "/locations", self._locations),
            ("GET", "/datacenters", self._datacenters),
            ("GET", "/images", self._images),
            ("GET", "/firewalls", self._firewalls),
            ("POST", "/firewalls", self._firewall_create),
            ("GET", "/firewalls/{id}", self._firewall_view),
            ("DELETE", "/firewalls/{id}", self._firewall_delete),
            ("POST", "/firewalls/{id}/actions/apply_to_resources", self._firewall_apply),
            ("POST", "/firewalls/{id}/actions/remove_from_resources", self._firewall_remove),
            ("POST", "/firewalls/{id}/actions/set_rules", self._firewall_set_rules),
            ("GET", "/ssh_keys", self._keys),
            ("DELETE", "/ssh_keys/{id}", self._delete_thing("ssh_key")),
            ("GET", "/volumes", self._volumes),
            ("DELETE", "/volumes/{id}", self._delete_thing("volume")),
            ("GET", "/primary_ips", self._primary_ips),
            ("DELETE", "/primary_ips/{id}", self._delete_thing("primary_ip")),
        ):
            self.route(method, path, handler)

    def refusal(self, refused: Refusal) -> Any:
        return {"error": {"code": refused.code, "message": refused.message}}

    def known_refusal(self, kind: str) -> Refusal:
        return {
            "unauthorized": Refusal(401, "the request provided an invalid token", "unauthorized"),
            "denied": Refusal(403, "insufficient permissions for this request", "forbidden"),
            "missing": Refusal(404, "resource not found", "not_found"),
            "busy": Refusal(429, "rate limit exceeded", "rate_limit_exceeded"),
            "broken": Refusal(500, "error within the API backend", "server_error"),
            "down": Refusal(503, "service unavailable", "unavailable"),
            "capacity": Refusal(412, "error during placement", "resource_unavailable"),
            "quota": Refusal(403, "server limit exceeded", "resource_limit_exceeded"),
            "pending": Refusal(423, "server is locked", "locked"),
        }[kind]

    def default_host(self) -> tuple[str, str, str]:
        return "fsn1", "cx23", "debian-12"

    def blank(self, kind: str) -> dict[str, Any]:
        return {"firewall": {"rules": [], "servers": [], "selectors": []}}.get(kind, {})

    # ----------------------------------------------------------------------------------------- servers

    def _list(self, call: Call) -> Answer:
        chosen = [host for host in self.listed(call) if call.query.get("name", host.name) == host.name]
        chosen = [host for host in chosen if _selected(host.labels, call.query.get("label_selector", ""))]
        if "status" in call.query:
            chosen = [host for host in chosen if STATUS[host.phase] == call.query["status"]]
        shapes = [self._server(host) for host in chosen]
        for host in chosen:
            self.world.looked(host)
        return self._page(call, "servers", shapes)

    def _view(self, call: Call) -> Answer:
        host = self.host(call.params["id"])
        shape = self._server(host)
        self.world.looked(host)
        return 200, {"server": shape}

    def _create(self, call: Call) -> Answer:
        body = call.body
        name = body["name"]
        if not NAME.fullmatch(name) or len(name) > 63:
            raise _invalid("name", "must be a valid hostname")
        if any(one.name == name for one in self.hosts()):
            raise Refusal(409, "server name is already used", "uniqueness_error")
        size = next((t for t, told in TYPES.items() if body["server_type"] in (t, str(told[0]))), None)
        if size is None:
            raise _invalid("server_type", "server type not found")
        location = str(body.get("location") or str(body.get("datacenter") or "").partition("-")[0] or TYPES[size][8][0])
        location = next((n for n, told in LOCATIONS.items() if location in (n, str(told[0]))), "")
        if not location:
            raise _invalid("location", "location not found")
        if location not in TYPES[size][8]:
            raise _invalid("server_type", "unsupported location for server type")
        if (size, location) in SOLD_OUT:
            raise self.known_refusal("capacity")
        architecture = TYPES[size][1]
        image = next((i for i in IMAGES if body["image"] in (i[1], str(i[0])) and i[2] == architecture), None)
        if image is None:
            raise _invalid("image", "image not found")
        labels = _labels(body)
        user_data = body.get("user_data") or ""
        if len(user_data.encode()) > MAX_USER_DATA_BYTES:
            raise _invalid("user_data", "must be at most 32 KiB")
        keys = [one.name for one in self.world.of(self.name, "ssh_key")]
        for key in body.get("ssh_keys") or []:
            if key not in keys:
                raise _invalid("ssh_keys", f"SSH key {key} not found")
        firewalls = [str(one["firewall"]) for one in body.get("firewalls") or []]
        for firewall in firewalls:
            self.thing("firewall", firewall)
        host = self.new_host(
            name=name,
            region=location,
            size=size,
            image=image[1],
            tags=[],
            labels=labels,
            user_data=user_data,
            firewall=firewalls[0] if firewalls else None,
            # Without a key it makes up a password for root, which has to be changed at the first login.
            root_expired=not body.get("ssh_keys"),
        )
        for firewall in firewalls:
            self.thing("firewall", firewall).data["servers"].append(host.id)
        return 201, {
            "server": self._server(host),
            "action": self._action("create_server", host.id),
            "next_actions": [self._action("start_server", host.id)],
            "root_password": None if body.get("ssh_keys") else "not-for-use",
        }

    def _delete(self, call: Call) -> Answer:
        host = self.delete_host(call, call.params["id"])
        return 200, {"action": self._action("delete_server", host.id)}

    def _action(self, command: str, server: str, kind: str = "server") -> dict[str, Any]:
        return {
            "id": int(self.world.new_id(numeric=True)),
            "command": command,
            "status": "running",
            "progress": 0,
            "started": _time(now()),
            "finished": None,
            "resources": [{"id": int(server), "type": kind}],
            "error": None,
        }

    def _action_view(self, call: Call) -> Answer:
        done = {"status": "success", "progress": 100, "finished": _time(now()), "id": int(call.params["id"])}
        return 200, {"action": {**self._action("create_server", call.params["id"]), **done}}

    def _server(self, host: Host) -> dict[str, Any]:
        image = next(i for i in IMAGES if i[1] == host.image)
        attached = [{"id": int(one.id), "status": "applied"} for one in self.firewalls_of(host)]
        return {
            "id": int(host.id),
            "name": host.name,
            "status": STATUS[host.phase],
            "created": _time(host.created),
            "labels": host.labels,
            "public_net": {
                "ipv4": {"id": int(host.id), "ip": host.address, "blocked": False, "dns_ptr": f"static.{host.name}.example"},
                "ipv6": {"id": int(host.id) + 1, "ip": "2001:db8:1::/64", "blocked": False, "dns_ptr": []},
                "floating_ips": [],
                "firewalls": attached,
            },
            "private_net": [],
            "server_type": self._type(host.size),
            "datacenter": self._datacenter(host.region),
            "location": self._location(host.region),
            "image": self._image(image),
            "iso": None,
            "rescue_enabled": False,
            "locked": host.phase in (PROVISIONING, LEAVING),
            "backup_window": None,
            "outgoing_traffic": 0,
            "ingoing_traffic": 0,
            "included_traffic": 21990232555520,
            "protection": {"delete": False, "rebuild": False},
            "volumes": [],
            "load_balancers": [],
            "primary_disk_size": TYPES[host.size][5],
            "placement_group": None,
        }

    # ----------------------------------------------------------------------------------- what there is

    def _types(self, call: Call) -> Answer:
        return self._page(call, "server_types", [self._type(one) for one in TYPES if call.query.get("name", one) == one])

    def _type(self, name: str) -> dict[str, Any]:
        id, architecture, cpu_type, cores, memory, disk, hourly, monthly, places = TYPES[name]
        return {
            "id": id,
            "name": name,
            "description": name.upper(),
            "category": "cost_optimized" if cpu_type == "shared" else "general_purpose",
            "cores": cores,
            "memory": memory,
            "disk": disk,
            "deprecated": False,
            "deprecation": None,
            "storage_type": "local",
            "cpu_type": cpu_type,
            "architecture": architecture,
            "locations": [{"id": LOCATIONS[one][0], "name": one, "deprecation": None} for one in places],
            "prices": [
                {
                    "location": one,
                    "price_hourly": _price(hourly),
                    "price_monthly": _price(monthly),
                    "included_traffic": 21990232555520,
                    "price_per_tb_traffic": _price("1.0000000000"),
                }
                for one in places
            ],
        }

    def _pricing(self, call: Call) -> Answer:
        """An IPv4 address is paid for besides the server."""
        address = {"price_hourly": _price("0.0008000000"), "price_monthly": _price("0.5000000000")}
        shapes = [self._type(one) for one in TYPES]
        pricing = {
            "currency": "EUR",
            "vat_rate": f"{(VAT - 1) * 100:.6f}",
            "image": {"price_per_gb_month": _price("0.0110000000")},
            "floating_ip": {"price_monthly": _price("3.0000000000")},
            "floating_ips": [],
            "primary_ips": [{"type": "ipv4", "prices": [{"location": one, **address} for one in LOCATIONS]}],
            "server_backup": {"percentage": "20.0000000000"},
            "server_types": [{key: shape[key] for key in ("id", "name", "prices")} for shape in shapes],
            "load_balancer_types": [],
            "volume": {"price_per_gb_month": _price("0.0440000000")},
        }
        return 200, {"pricing": pricing}

    def _location(self, name: str) -> dict[str, Any]:
        id, city, country, zone = LOCATIONS[name]
        return {
            "id": id,
            "name": name,
            "description": f"{city} DC Park",
            "country": country,
            "city": city,
            "latitude": 50.47612,
            "longitude": 12.370071,
            "network_zone": zone,
        }

    def _locations(self, call: Call) -> Answer:
        named = [one for one in LOCATIONS if call.query.get("name", one) == one]
        return self._page(call, "locations", [self._location(one) for one in named])

    def _datacenter(self, location: str) -> dict[str, Any]:
        supported = [told[0] for told in TYPES.values() if location in told[8]]
        available = [told[0] for n, told in TYPES.items() if location in told[8] and (n, location) not in SOLD_OUT]
        return {
            "id": LOCATIONS[location][0],
            "name": f"{location}-dc1",
            "description": f"{LOCATIONS[location][1]} DC 1",
            "location": self._location(location),
            "server_types": {"supported": supported, "available": available, "available_for_migration": available},
        }

    def _datacenters(self, call: Call) -> Answer:
        answered = self._page(call, "datacenters", [self._datacenter(one) for one in LOCATIONS])[1]
        return 200, {**answered, "recommendation": 1}

    def _image(self, image: tuple[int, str, str]) -> dict[str, Any]:
        return {
            "id": image[0],
            "type": "system",
            "status": "available",
            "name": image[1],
            "description": IMAGES[image],
            "image_size": None,
            "disk_size": 5,
            "created": "2025-01-01T00:00:00+00:00",
            "created_from": None,
            "bound_to": None,
            "os_flavor": image[1].partition("-")[0],
            "os_version": image[1].partition("-")[2],
            "rapid_deploy": True,
            "protection": {"delete": False},
            "deprecated": None,
            "deleted": None,
            "labels": {},
            "architecture": image[2],
        }

    def _images(self, call: Call) -> Answer:
        asked = call.query
        chosen = [i for i in IMAGES if asked.get("name", i[1]) == i[1] and asked.get("architecture", i[2]) == i[2]]
        return self._page(call, "images", [self._image(one) for one in chosen])

    # --------------------------------------------------------------------------------------- firewalls

    def rules(self, firewall: Thing) -> list[tuple[str, str]]:
        told = firewall.data["rules"]
        return [(r["protocol"], r.get("port") or "any") for r in told if r["direction"] == "in"]

    def covers(self, firewall: Thing, host: Host) -> bool:
        return host.id in firewall.data["servers"] or any(_selected(host.labels, s) for s in firewall.data["selectors"])

    def _firewalls(self, call: Call) -> Answer:
        return self._page(call, "firewalls", [self._firewall(one) for one in self._chosen(call, "firewall")])

    def _firewall_view(self, call: Call) -> Answer:
        return 200, {"firewall": self._firewall(self.thing("firewall", call.params["id"]))}

    def _firewall_create(self, call: Call) -> Answer:
        body = call.body
        if any(one.name == body["name"] for one in self.world.of(self.name, "firewall")):
            raise Refusal(409, "name is already used", "uniqueness_error")
        self._check_rules(body.get("rules") or [])
        thing = Thing(
            "firewall",
            self.name,
            self.world.new_id(numeric=True),
            body["name"],
            [],
            _labels(body),
            now(),
            {"rules": body.get("rules") or [], "servers": [], "selectors": []},
        )
        self._apply(thing, body.get("apply_to") or [])
        self.world.things.append(thing)
        return 201, {"firewall": self._firewall(thing), "actions": []}

    def _apply(self, thing: Thing, resources: list[dict[str, Any]]) -> None:
        for one in resources:
            if one["type"] == "server":
                thing.data["servers"].append(self.host(str(one["server"]["id"])).id)
            else:
                thing.data["selectors"].append(one["label_selector"]["selector"])

    def _firewall_apply(self, call: Call) -> Answer:
        thing = self.thing("firewall", call.params["id"])
        self._apply(thing, call.body["apply_to"])
        return 201, {"actions": [self._action("apply_firewall", thing.id, "firewall")]}

    def _firewall_set_rules(self, call: Call) -> Answer:
        thing = self.thing("firewall", call.params["id"])
        self._check_rules(call.body["rules"])
        thing.data["rules"] = call.body["rules"]
        return 201, {"actions": [self._action("set_firewall_rules", thing.id, "firewall")]}

    def _check_rules(self, rules: list[dict[str, Any]]) -> None:
        for rule in rules:
            if rule["protocol"] in ("tcp", "udp") and not rule.get("port"):
                raise _invalid("rules", "port is required for tcp and udp")
            if rule["direction"] == "in" and not rule.get("source_ips"):
                raise _invalid("rules", "source_ips is required")

    def _firewall_remove(self, call: Call) -> Answer:
        thing = self.thing("firewall", call.params["id"])
        for one in call.body["remove_from"]:
            if one["type"] == "server":
                thing.data["servers"] = [s for s in thing.data["servers"] if s != str(one["server"]["id"])]
            else:
                thing.data["selectors"] = [s for s in thing.data["selectors"] if s != one["label_selector"]["selector"]]
        return 201, {"actions": [self._action("remove_firewall", thing.id, "firewall")]}

    def _firewall_delete(self, call: Call) -> Answer:
        thing = self.thing("firewall", call.params["id"])
        if any(self.covers(thing, host) for host in self.hosts_quietly()):
            raise Refusal(409, f"firewall with ID '{thing.id}' is still in use", "resource_in_use")
        self.world.things.remove(thing)
        return 204, None

    def _firewall(self, thing: Thing) -> dict[str, Any]:
        rules = [
            {
                "direction": rule["direction"],
                "protocol": rule["protocol"],
                "port": rule.get("port"),
                "source_ips": rule.get("source_ips", []),
                "destination_ips": rule.get("destination_ips", []),
                "description": rule.get("description"),
            }
            for rule in thing.data["rules"]
        ]
        attached = [host for host in self.hosts_quietly() if host.id in thing.data["servers"]]
        return {
            "id": int(thing.id),
            "name": thing.name,
            "labels": thing.labels,
            "created": _time(thing.created),
            "rules": rules,
            "applied_to": [{"type": "server", "server": {"id": int(host.id)}} for host in attached]
            + [
                {"type": "label_selector", "label_selector": {"selector": s}, "applied_to_resources": []}
                for s in thing.data["selectors"]
            ],
        }

    # ------------------------------------------------------------------- keys, volumes, and addresses

    def _chosen(self, call: Call, kind: str) -> list[Thing]:
        return [
            one
            for one in self.world.of(self.name, kind)
            if call.query.get("name", one.name) == one.name
            and _selected(one.labels, call.query.get("label_selector", ""))
        ]

    def _keys(self, call: Call) -> Answer:
        shapes = [
            {
                "id": int(one.id),
                "name": one.name,
                "fingerprint": "b7:2f:30:a0:2f:6c:58:6c:21:04:58:61:ba:06:3b:2f",
                "public_key": one.data.get("key", "ssh-ed25519 AAAA"),
                "labels": one.labels,
                "created": _time(one.created),
            }
            for one in self._chosen(call, "ssh_key")
        ]
        return self._page(call, "ssh_keys", shapes)

    def _volumes(self, call: Call) -> Answer:
        shapes = [
            {
                "id": int(one.id),
                "name": one.name,
                "created": _time(one.created),
                "server": None,
                "location": self._location("fsn1"),
                "size": 10,
                "linux_device": f"/dev/disk/by-id/scsi-0HC_Volume_{one.id}",
                "protection": {"delete": False},
                "labels": one.labels,
                "status": "available",
                "format": "ext4",
            }
            for one in self._chosen(call, "volume")
        ]
        return self._page(call, "volumes", shapes)

    def _primary_ips(self, call: Call) -> Answer:
        shapes = [
            {
                "id": int(one.id),
                "name": one.name,
                "created": _time(one.created),
                "ip": "198.51.100.7",
                "type": "ipv4",
                "assignee_id": None,
                "assignee_type": "server",
                "auto_delete": False,
                "blocked": False,
                "dns_ptr": [],
                "labels": one.labels,
                "protection": {"delete": False},
                "datacenter": self._datacenter("fsn1"),
                "location": self._location("fsn1"),
            }
            for one in self._chosen(call, "primary_ip")
        ]
        return self._page(call, "primary_ips", shapes)

    def _delete_thing(self, kind: str) -> Any:
        def handler(call: Call) -> Answer:
            self.forget(kind, call.params["id"])
            return 204, None

        return handler

    def _page(self, call: Call, name: str, rows: list[dict[str, Any]]) -> Answer:
        size = min(50, whole(call.query.get("per_page", ""), 25))
        page = whole(call.query.get("page", ""), 1)
        shown, last = page_of(rows, size, page)
        pagination = {
            "page": page,
            "per_page": size,
            "previous_page": page - 1 if page > 1 else None,
            "next_page": page + 1 if page < last else None,
            "last_page": last,
            "total_entries": len(rows),
        }
        return 200, {name: shown, "meta": {"pagination": pagination}}


def _labels(body: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = body.get("labels") or {}
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key) or not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
            raise _invalid("labels", f"label {key} is invalid")
    return labels


def _selected(labels: dict[str, str], selector: str) -> bool:
    """`a=b,c!=d,e,!f`."""
    for part in filter(None, selector.split(",")):
        if "!=" in part:
            key, _, value = part.partition("!=")
            good = labels.get(key) != value
        elif "=" in part:
            key, _, value = part.replace("==", "=").partition("=")
            good = labels.get(key) == value
        else:
            good = part[1:] not in labels if part.startswith("!") else part in labels
        if not good:
            return False
    return True


def _invalid(field: str, message: str) -> Refusal:
    return Refusal(422, f"invalid input in field '{field}': {message}", "invalid_input", field)


def _price(net: str) -> dict[str, str]:
    return {"net": net, "gross": f"{float(net) * VAT:.16f}"}


def _time(at: datetime.datetime) -> str:
    return at.isoformat()
