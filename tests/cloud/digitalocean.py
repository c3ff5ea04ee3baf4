"""DigitalOcean's API v2, as much of it as a client that rents hosts by the hour may need.

Its own words: a host is a droplet, names need not be unique, tags have no values and come to be by their use, a droplet
has no address at first, a deleted one is shown as active and locked until it is gone, and firewalls follow tags.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

from openapi import Spec
from provider import Answer, Call, Provider, Refusal, page_of, whole
from world import BOOTING, LEAVING, OFF, PROVISIONING, RUNNING, Host, Thing, now

STATUS = {PROVISIONING: "new", BOOTING: "new", RUNNING: "active", OFF: "off", LEAVING: "active"}
TAG = re.compile(r"[a-zA-Z0-9_\-:]{1,255}")
MAX_USER_DATA_BYTES = 64 * 1024
# region: (name, can it be used)
REGIONS = {
    "nyc3": ("New York 3", True),
    "fra1": ("Frankfurt 1", True),
    "ams3": ("Amsterdam 3", True),
    "sgp1": ("Singapore 1", True),
    "nyc2": ("New York 2", False),
}
# size: (cpus, memory MB, disk GB, transfer TB, monthly, hourly, regions, can it be had)
EVERYWHERE = ("nyc3", "fra1", "ams3", "sgp1")
SIZES = {
    "s-1vcpu-1gb": (1, 1024, 25, 1.0, 6.0, 0.00893, EVERYWHERE, True),
    "s-1vcpu-2gb": (1, 2048, 50, 2.0, 12.0, 0.01786, EVERYWHERE, True),
    "s-2vcpu-4gb": (2, 4096, 80, 4.0, 24.0, 0.03571, EVERYWHERE, True),
    "s-4vcpu-8gb": (4, 8192, 160, 5.0, 48.0, 0.07143, EVERYWHERE, True),
    "s-8vcpu-16gb": (8, 16384, 320, 6.0, 96.0, 0.14286, ("nyc3", "fra1"), True),
    "c-2": (2, 4096, 25, 4.0, 42.0, 0.0625, ("nyc3",), True),
    "512mb": (1, 512, 20, 1.0, 5.0, 0.00744, (), False),
}
IMAGES = {
    "debian-12-x64": (129211873, "12 x64", "Debian"),
    "debian-13-x64": (195932981, "13 x64", "Debian"),
    "ubuntu-24-04-x64": (155133621, "24.04 (LTS) x64", "Ubuntu"),
}


class DigitalOcean(Provider):
    name = "digitalocean"
    spec_file = "digitalocean-openapi.json"

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        # Tags that exist though nothing carries them.
        self._tags: set[str] = set()
        for method, path, handler in (
            ("GET", "/droplets", self._list),
            ("POST", "/droplets", self._create),
            ("GET", "/droplets/{id}", self._view),
            ("DELETE", "/droplets/{id}", self._delete),
            ("GET", "/sizes", self._sizes),
            ("GET", "/regions", self._regions),
            ("GET", "/images", self._images),
            ("GET", "/tags", self._tag_list),
            ("POST", "/tags", self._tag_create),
            ("GET", "/tags/{name}", self._tag_view),
            ("DELETE", "/tags/{name}", self._tag_delete),
            ("GET", "/firewalls", self._firewalls),
            ("POST", "/firewalls", self._firewall_create),
            ("GET", "/firewalls/{id}", self._firewall_view),
            ("PUT", "/firewalls/{id}", self._firewall_replace),
            ("DELETE", "/firewalls/{id}", self._delete_thing("firewall")),
            ("POST", "/firewalls/{id}/droplets", self._firewall_droplets),
            ("POST", "/firewalls/{id}/tags", self._firewall_tags),
            ("GET", "/account/keys", self._keys),
            ("DELETE", "/account/keys/{id}", self._delete_thing("ssh_key")),
            ("GET", "/volumes", self._volumes),
            ("DELETE", "/volumes/{id}", self._delete_thing("volume")),
        ):
            self.route(method, path, handler)

    def load_spec(self, path: Path) -> Spec:
        return Spec.load(path, strip="/v2")

    def refusal(self, refused: Refusal) -> Any:
        return {"id": refused.code, "message": refused.message}

    def known_refusal(self, kind: str) -> Refusal:
        return {
            "unauthorized": Refusal(401, "Unable to authenticate you.", "unauthorized"),
            "denied": Refusal(403, "You are not authorized to perform this operation", "forbidden"),
            "missing": Refusal(404, "The resource you were accessing could not be found.", "not_found"),
            "busy": Refusal(429, "API rate limit exceeded.", "too_many_requests"),
            "broken": Refusal(500, "Unexpected server-side error", "server_error"),
            "down": Refusal(503, "Server is unavailable.", "service_unavailable"),
            "capacity": _unprocessable("Size is not available in this region."),
            "quota": _unprocessable("creating this/these droplet(s) will exceed your droplet limit"),
            "pending": _unprocessable("Droplet already has a pending event."),
        }[kind]

    def default_host(self) -> tuple[str, str, str]:
        return "fra1", "s-2vcpu-4gb", "debian-12-x64"

    def new_thing_id(self, kind: str) -> str:
        return self.world.new_id(numeric=kind == "ssh_key")

    def blank(self, kind: str) -> dict[str, Any]:
        return {"firewall": {"inbound": [], "outbound": [], "droplets": []}}.get(kind, {})

    # ---------------------------------------------------------------------------------------- droplets

    def _list(self, call: Call) -> Answer:
        chosen = [host for host in self.listed(call) if call.query.get("name", host.name) == host.name]
        if "tag_name" in call.query:
            chosen = [host for host in chosen if call.query["tag_name"] in host.tags]
        shapes = [self._droplet(host) for host in chosen]
        for host in chosen:
            self.world.looked(host)
        return self._page(call, "droplets", shapes)

    def _view(self, call: Call) -> Answer:
        host = self.host(call.params["id"])
        shape = self._droplet(host)
        self.world.looked(host)
        return 200, {"droplet": shape}

    def _create(self, call: Call) -> Answer:
        body = call.body
        if "names" in body:
            raise _unprocessable("The stand-in makes one droplet at a time.")
        region = body.get("region") or "nyc3"
        if region not in REGIONS or not REGIONS[region][1]:
            raise _unprocessable("You specified an invalid region for Droplet creation.")
        size = SIZES.get(body["size"])
        if size is None:
            raise _unprocessable("You specified an invalid size for Droplet creation.")
        if region not in size[6]:
            raise self.known_refusal("capacity")
        image = next((i for i, told in IMAGES.items() if body["image"] in (i, told[0])), None)
        if image is None:
            raise _unprocessable("You specified an invalid image for Droplet creation.")
        tags = list(body.get("tags") or [])
        for tag in tags:
            self._check_tag(tag)
        user_data = body.get("user_data") or ""
        if len(user_data.encode()) > MAX_USER_DATA_BYTES:
            raise _unprocessable("User data must be at most 64 KiB.")
        keys = {text for one in self.world.of(self.name, "ssh_key") for text in (one.id, one.data.get("fingerprint", ""))}
        for key in body.get("ssh_keys") or []:
            if str(key) not in keys:
                raise _unprocessable(f"{key} are invalid key identifiers for Droplet creation.")
        self._tags |= set(tags)
        host = self.new_host(
            name=body["name"],
            region=region,
            size=body["size"],
            image=image,
            tags=tags,
            labels={},
            user_data=user_data,
            firewall=None,
            # Without a key it makes up a password for root, which has to be changed at the first login.
            root_expired=not body.get("ssh_keys"),
        )
        action = int(self.world.new_id(numeric=True))
        href = f"https://api.digitalocean.com/v2/actions/{action}"
        links = {"actions": [{"id": action, "rel": "create", "href": href}]}
        return 202, {"droplet": self._droplet(host), "links": links}

    def _delete(self, call: Call) -> Answer:
        self.delete_host(call, call.params["id"])
        return 204, None

    def _droplet(self, host: Host) -> dict[str, Any]:
        size = SIZES[host.size]
        addresses = [
            {"ip_address": host.address, "netmask": "255.255.240.0", "gateway": "198.51.100.1", "type": "public"},
            {"ip_address": "10.110.0.2", "netmask": "255.255.0.0", "gateway": "10.110.0.1", "type": "private"},
        ]
        return {
            "id": int(host.id),
            "name": host.name,
            "memory": size[1],
            "vcpus": size[0],
            "disk": size[2],
            "locked": host.phase in (PROVISIONING, LEAVING),
            "status": STATUS[host.phase],
            "kernel": None,
            "created_at": _time(host.created),
            "features": ["private_networking"],
            "backup_ids": [],
            "next_backup_window": None,
            "snapshot_ids": [],
            "image": self._image(host.image),
            "volume_ids": [],
            "size": self._size(host.size),
            "size_slug": host.size,
            "networks": {"v4": [] if host.phase == PROVISIONING else addresses, "v6": []},
            "region": self._region(host.region),
            "tags": host.tags,
            "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000",
        }

    # ----------------------------------------------------------------------------------- what there is

    def _size(self, slug: str) -> dict[str, Any]:
        cpus, memory, disk, transfer, monthly, hourly, regions, available = SIZES[slug]
        return {
            "slug": slug,
            "memory": memory,
            "vcpus": cpus,
            "disk": disk,
            "transfer": transfer,
            "price_monthly": monthly,
            "price_hourly": hourly,
            "regions": list(regions),
            "available": available,
            "description": "CPU-Optimized" if slug.startswith("c-") else "Basic",
        }

    def _sizes(self, call: Call) -> Answer:
        return self._page(call, "sizes", [self._size(one) for one in SIZES])

    def _region(self, slug: str) -> dict[str, Any]:
        name, available = REGIONS[slug]
        sizes = [one for one, told in SIZES.items() if slug in told[6]]
        return {"name": name, "slug": slug, "features": ["metadata"], "available": available, "sizes": sizes}

    def _regions(self, call: Call) -> Answer:
        return self._page(call, "regions", [self._region(one) for one in REGIONS])

    def _image(self, slug: str) -> dict[str, Any]:
        id, name, distribution = IMAGES[slug]
        return {
            "id": id,
            "name": name,
            "type": "base",
            "distribution": distribution,
            "slug": slug,
            "public": True,
            "regions": list(EVERYWHERE),
            "created_at": "2025-01-01T00:00:00Z",
            "min_disk_size": 7,
            "size_gigabytes": 0.6,
            "description": f"{distribution} {name}",
            "tags": [],
            "status": "available",
        }

    def _images(self, call: Call) -> Answer:
        return self._page(call, "images", [self._image(one) for one in IMAGES])

    # -------------------------------------------------------------------------------------------- tags

    def _check_tag(self, tag: str) -> None:
        if not TAG.fullmatch(tag):
            raise _unprocessable("Tag names may only contain letters, numbers, colons, dashes, and underscores.")

    def _tag(self, name: str) -> dict[str, Any]:
        droplets = sum(name in host.tags for host in self.hosts_quietly())
        return {"name": name, "resources": {"count": droplets, "droplets": {"count": droplets}}}

    def _tag_list(self, call: Call) -> Answer:
        return self._page(call, "tags", [self._tag(one) for one in sorted(self._tags)])

    def _tag_create(self, call: Call) -> Answer:
        self._check_tag(call.body["name"])
        self._tags.add(call.body["name"])
        return 201, {"tag": self._tag(call.body["name"])}

    def _tag_view(self, call: Call) -> Answer:
        if call.params["name"] not in self._tags:
            raise self.known_refusal("missing")
        return 200, {"tag": self._tag(call.params["name"])}

    def _tag_delete(self, call: Call) -> Answer:
        if call.params["name"] not in self._tags:
            raise self.known_refusal("missing")
        self._tags.remove(call.params["name"])
        for one in [*self.hosts_quietly(), *self.world.of(self.name, "firewall")]:
            one.tags = [tag for tag in one.tags if tag != call.params["name"]]
        return 204, None

    # --------------------------------------------------------------------------------------- firewalls

    def rules(self, firewall: Thing) -> list[tuple[str, str]]:
        return [(r["protocol"], r["ports"]) for r in firewall.data["inbound"] if r["protocol"] != "icmp"]

    def covers(self, firewall: Thing, host: Host) -> bool:
        return host.id in firewall.data["droplets"] or bool(set(firewall.tags) & set(host.tags))

    def _firewalls(self, call: Call) -> Answer:
        return self._page(call, "firewalls", [self._firewall(one) for one in self.world.of(self.name, "firewall")])

    def _firewall_view(self, call: Call) -> Answer:
        return 200, {"firewall": self._firewall(self.thing("firewall", call.params["id"]))}

    def _firewall_create(self, call: Call) -> Answer:
        body = call.body
        if any(one.name == body["name"] for one in self.world.of(self.name, "firewall")):
            raise Refusal(409, "duplicate name", "conflict")
        droplets = [self.host(str(one)).id for one in body.get("droplet_ids") or []]
        tags = list(body.get("tags") or [])
        for tag in tags:
            if tag not in self._tags:
                raise _unprocessable(f"tag {tag} does not exist")
        data = {"inbound": body.get("inbound_rules") or [], "outbound": body.get("outbound_rules") or []}
        id = self.new_thing_id("firewall")
        thing = Thing("firewall", self.name, id, body["name"], tags, {}, now(), {**data, "droplets": droplets})
        self.world.things.append(thing)
        return 202, {"firewall": self._firewall(thing)}

    def _firewall_replace(self, call: Call) -> Answer:
        thing, body = self.thing("firewall", call.params["id"]), call.body
        thing.name, thing.tags = body["name"], list(body.get("tags") or [])
        thing.data = {
            "inbound": body.get("inbound_rules") or [],
            "outbound": body.get("outbound_rules") or [],
            "droplets": [str(one) for one in body.get("droplet_ids") or []],
        }
        return 200, {"firewall": self._firewall(thing)}

    def _firewall_droplets(self, call: Call) -> Answer:
        thing = self.thing("firewall", call.params["id"])
        thing.data["droplets"] += [self.host(str(one)).id for one in call.body["droplet_ids"]]
        return 204, None

    def _firewall_tags(self, call: Call) -> Answer:
        thing = self.thing("firewall", call.params["id"])
        thing.tags += call.body["tags"]
        return 204, None

    def _firewall(self, thing: Thing) -> dict[str, Any]:
        return {
            "id": thing.id,
            "name": thing.name,
            "status": "succeeded",
            "created_at": _time(thing.created),
            "pending_changes": [],
            "inbound_rules": thing.data["inbound"],
            "outbound_rules": thing.data["outbound"],
            "droplet_ids": [int(one) for one in thing.data["droplets"]],
            "tags": thing.tags,
        }

    # -------------------------------------------------------------------------------- keys and volumes

    def _keys(self, call: Call) -> Answer:
        shapes = [
            {
                "id": int(one.id),
                "name": one.name,
                "fingerprint": "3b:16:e4:bf:8b:00:8b:b8:59:8c:a9:d3:f0:19:fa:45",
                "public_key": one.data.get("key", "ssh-ed25519 AAAA"),
            }
            for one in self.world.of(self.name, "ssh_key")
        ]
        return self._page(call, "ssh_keys", shapes)

    def _volumes(self, call: Call) -> Answer:
        shapes = [
            {
                "id": one.id,
                "name": one.name,
                "description": "",
                "size_gigabytes": 10,
                "droplet_ids": [],
                "created_at": _time(one.created),
                "tags": one.tags,
                "region": self._region("fra1"),
                "filesystem_type": "ext4",
                "filesystem_label": "",
            }
            for one in self.world.of(self.name, "volume")
            if call.query.get("name", one.name) == one.name
        ]
        return self._page(call, "volumes", shapes)

    def _delete_thing(self, kind: str) -> Any:
        def handler(call: Call) -> Answer:
            self.forget(kind, call.params["id"])
            return 204, None

        return handler

    def _page(self, call: Call, name: str, rows: list[dict[str, Any]]) -> Answer:
        size = whole(call.query.get("per_page", ""), 20)
        page = whole(call.query.get("page", ""), 1)
        shown, last = page_of(rows, size, page)
        base = f"https://api.digitalocean.com/v2{call.path}?"
        kept = "".join(f"{key}={value}&" for key, value in call.query.items() if key != "page")
        pages = {}
        if page < last:
            pages |= {"last": f"{base}{kept}page={last}", "next": f"{base}{kept}page={page + 1}"}
        if page > 1:
            pages |= {"first": f"{base}{kept}page=1", "prev": f"{base}{kept}page={page - 1}"}
        links = {"pages": pages} if pages else {}
        return 200, {name: shown, "links": links, "meta": {"total": len(rows)}}


def _unprocessable(message: str) -> Refusal:
    return Refusal(422, message, "unprocessable_entity")


def _time(at: datetime.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
