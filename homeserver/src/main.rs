//! The `gatehouse-homeserver` program.

use std::process::ExitCode;

use clap::Parser;
use gatehouse_homeserver::command::{Command, with_sources};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Command::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gatehouse-homeserver: {}", with_sources(&error));
            ExitCode::FAILURE
        }
    }
}
