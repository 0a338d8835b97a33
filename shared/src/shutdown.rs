//! Turns SIGTERM and SIGINT into one cancellation token; a second signal ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Watches for SIGTERM and SIGINT on the current runtime and answers the token that the first one cancels.
/// The second signal exits with status 130 without waiting for anything.
///
/// # Errors
/// When the signal handlers cannot be registered.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let watched = token.clone();
    tokio::spawn(async move {
        next_of(&mut terminate, &mut interrupt).await;
        tracing::info!("shutting down; a second signal ends the process at once");
        watched.cancel();
        next_of(&mut terminate, &mut interrupt).await;
        tracing::warn!("second signal: exiting without waiting");
        std::process::exit(130);
    });
    Ok(token)
}

async fn next_of(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
