//! tokio-tungstenite 0.24 under the version number that serenity 0.12 asks for. See docs/decisions/0002.
pub use real::*;
