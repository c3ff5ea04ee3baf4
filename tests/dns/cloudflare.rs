//! Names at Cloudflare, against a stand-in.
