//! Names that follow servers: against a real name server (BIND), and against a stand-in for Cloudflare.

#[path = "dns/bind.rs"]
mod bind;
#[path = "dns/cloudflare.rs"]
mod cloudflare;
#[path = "dns/rfc2136.rs"]
mod rfc2136;
