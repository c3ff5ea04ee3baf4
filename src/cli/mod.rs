//! What the binary does in a terminal.

pub mod check;
pub mod demo;
pub mod doctor;
pub mod progress;
pub mod run;
pub mod trust;
