//! One driver for each backend: it knows that backend's steps, and nothing of who asked.

pub mod docker;
pub mod fake;
