//! A host: the machine that a cloud server runs on while people play. Where it should be ([`Place`]) is what people
//! choose; what it is ([`HostRef`]) is what the provider said when it was made.

use super::Ms;
use super::cost::Price;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The provider of machines that are yours: nothing is created or destroyed there but a game's folder.
pub const OWN_MACHINE: &str = "ssh";

/// Where a server's host is rented; what is `None` follows the configuration and the recipe's needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `linode`, `hetzner`, `digitalocean`, `vultr`, or `ssh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The provider's word for it; for `ssh` the machine's name under `[hosts]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The provider's word for it: `cx23`, `g6-standard-2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// The provider's word for it; left out, its Debian that the recipe is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// A system that a rented host can come with, as its provider offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostImage {
    pub provider: String,
    /// The provider's word for it, for [`Place::image`].
    pub word: String,
    /// As people call it: `Debian 12`.
    pub title: String,
    /// What a host gets when none is chosen, for most games.
    pub usual: bool,
}

/// A host on record. It exists, and bills, until the provider says that it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRef {
    pub provider: String,
    /// As the provider names it; for `ssh` the machine's name under `[hosts]`.
    pub id: String,
    pub region: String,
    pub size: String,
    /// `None` until the provider has given it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The label in the DNS zone that leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The firewall that came with it, as the provider names it; it goes with the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<String>,
    /// What it costs; `None` for a machine of your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// When the provider's clock for the bill began.
    pub created_at: Ms,
    /// Its SSH host key (`ssh-ed25519 AAAA…`), made by us and handed over before it first came up, or pinned.
    pub host_key: String,
    /// The game was started on it since the world was pushed: what it holds may be newer than any backup.
    #[serde(default)]
    pub played: bool,
}
