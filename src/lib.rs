//! Spawnpoint: a Discord bot with which friends run game servers.
//!
//! Read `model` first. It is pure, and who reads it understands the product. `engine`
//! carries jobs out, `drivers` know the steps of one backend, `clients` speak to outside systems, `vault`
//! keeps backups, `store` holds all SQL, `app` is the only door for fronts. docs/architecture.md is the map,
//! and tests/layers.rs checks who may import whom.

pub mod app;
pub mod bus;
pub mod cli;
pub mod clients;
pub mod config;
pub mod discord;
pub mod drivers;
pub mod engine;
pub mod model;
pub mod program;
pub mod recipes;
pub mod scheduler;
pub mod store;
pub mod vault;
