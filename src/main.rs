//! stub
#![forbid(unsafe_code)]
#![allow(dead_code)]
mod client;
mod entry;
mod error;
mod glob;
mod handler;
mod hash;
mod propagate;
mod resp;
mod store;
mod table;
mod watch;
fn main() {}
