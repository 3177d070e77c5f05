//! What the program `turbotunnel` is made of, as a library: so that tests and other tools can use the parts.
//!
//! The subject is the session in crate `turbotunnel`; here are the screens, texts and helpers around it. Of general use is
//! [`lilbastard`], the proxy that cuts connections.

pub mod address;
pub mod args;
pub mod bench;
pub mod commands;
pub mod config;
mod demo;
mod echo;
pub mod failure;
pub mod forward;
mod keys;
pub mod lilbastard;
pub mod log;
mod open_files;
pub mod process;
mod proxy_protocol;
mod random;
mod service_manager;
mod signals;
mod status;
pub mod stdio;
pub mod text;
