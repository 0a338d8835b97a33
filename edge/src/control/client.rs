//! Asks a running edge over its control socket.

use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::protocol::{Answer, Refusal, Request};

/// Why a running edge gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing listens on the socket.
    #[error("no edge runs here: nothing answers on {} ({source}); `--config` or `--socket` names another", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The edge went away over the request, or is of a version that does not know it.
    #[error("the edge did not answer on {}: {reason}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What happened instead.
        reason: String,
    },
    /// The edge refused.
    #[error("{}", .0.message)]
    Refused(Refused),
}

/// A refusal of the edge, kept whole for programs that read it.
#[derive(Debug)]
pub struct Refused {
    /// For a person.
    pub message: String,
    /// For a program; null when there is nothing more to tell.
    pub details: serde_json::Value,
}

impl From<Refusal> for Refused {
    fn from(Refusal { message, details }: Refusal) -> Self {
        Self { message, details }
    }
}

/// Sends `request` to the edge behind `socket` and waits for its answer, however long that takes.
pub(crate) fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, AskError> {
    let no_answer = |reason: String| AskError::NoAnswer { path: socket.to_owned(), reason };
    let stream =
        UnixStream::connect(socket).map_err(|source| AskError::NotRunning { path: socket.to_owned(), source })?;
    let line = exchange(&stream, request).map_err(|error| no_answer(error.to_string()))?;
    let answer: Answer = serde_json::from_str(&line).map_err(|error| no_answer(error.to_string()))?;
    let told = answer.into_told().map_err(|refusal| AskError::Refused(refusal.into()))?;
    told.map_err(|error| no_answer(format!("it told something else than was asked ({error})")))
}

fn exchange(mut stream: &UnixStream, request: &Request) -> io::Result<String> {
    let mut line = serde_json::to_string(request).map_err(io::Error::other)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
    }
    Ok(answer)
}
