//! The named scenarios: each sets up what it needs and measures one or more parts.

mod create_room;
mod fan_out;
mod idle;
mod idle_sync;
mod initial_sync;
mod join;
mod login;
mod media;
mod messages;
mod register;
mod send;
mod send_at_depth;
mod storage;
mod versions;

use std::fmt;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use thiserror::Error;

use crate::client::{CallError, Server, Session};
use crate::measure::{Load, Probe};
use crate::report::Measurement;

/// How many requests a set-up makes at once.
const SETUP_AT_ONCE: usize = 8;

/// A scenario by its name on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Scenario {
    /// Nothing is asked for ten seconds: what the processes hold and use.
    Idle,
    /// GET /versions, 16 at once.
    Versions,
    /// Password logins, 4 at once.
    Login,
    /// Registrations, 4 at once.
    Register,
    /// Rooms made, 1 and 8 at once.
    CreateRoom,
    /// Messages into 1 room and into 50 rooms, by 1, 16 and 64 senders.
    Send,
    /// One message to many waiting `/sync` requests.
    FanOut,
    /// `/sync` with nothing new, 1 and 16 at once.
    IdleSync,
    /// The first `/sync` of a user in many rooms.
    InitialSync,
    /// `/messages` back from the end, 1 and 8 at once.
    Messages,
    /// Joins of a public room that has many members.
    Join,
    /// Media of 1 MiB up and down, 4 at once.
    Media,
    /// Bytes of database per plain message; needs --size-command.
    Storage,
    /// What a send costs early and late in the life of a database.
    SendAtDepth,
}

impl fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        formatter.write_str(value.as_ref().map_or("unknown", |value| value.get_name()))
    }
}

/// How large the set-ups are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sizes {
    /// Operations per measured part, unless its time is over first.
    #[arg(long, default_value_t = 2_000)]
    operations: u64,
    /// Members of the room that is joined.
    #[arg(long, default_value_t = 1_000)]
    members: usize,
    /// Waiting requests of fan-out.
    #[arg(long, default_value_t = 50)]
    listeners: usize,
    /// Rooms of the user of initial-sync.
    #[arg(long, default_value_t = 100)]
    rooms: usize,
    /// Messages in each of those rooms.
    #[arg(long, default_value_t = 50)]
    messages_per_room: usize,
    /// Messages that are stored for storage.
    #[arg(long, default_value_t = 10_000)]
    stored: u64,
    /// Messages that are stored before the second measurement of send-at-depth.
    #[arg(long, default_value_t = 200_000)]
    depth: u64,
}

/// What every scenario gets.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) server: Server,
    pub(crate) probes: Vec<Probe>,
    /// The longest that one part is measured.
    pub(crate) limit: Duration,
    pub(crate) size_command: Option<String>,
    pub(crate) sizes: Sizes,
}

/// Why a scenario gave up. A failed operation of a measured part is counted instead.
#[derive(Debug, Error)]
pub(crate) enum ScenarioError {
    #[error("the set-up failed: {0}")]
    Setup(#[from] CallError),
    #[error("storage needs --size-command")]
    NoSizeCommand,
    #[error("the size command did not print a number: {0}")]
    SizeCommand(String),
}

impl Scenario {
    pub(crate) async fn run(self, context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
        match self {
            Self::Idle => Ok(idle::run(context).await),
            Self::Versions => Ok(versions::run(context).await),
            Self::Login => login::run(context).await,
            Self::Register => Ok(register::run(context).await),
            Self::CreateRoom => create_room::run(context).await,
            Self::Send => send::run(context).await,
            Self::FanOut => fan_out::run(context).await,
            Self::IdleSync => idle_sync::run(context).await,
            Self::InitialSync => initial_sync::run(context).await,
            Self::Messages => messages::run(context).await,
            Self::Join => join::run(context).await,
            Self::Media => media::run(context).await,
            Self::Storage => storage::run(context).await,
            Self::SendAtDepth => send_at_depth::run(context).await,
        }
    }
}

impl Context {
    /// The load of one part, with the sizes of this run.
    fn load(&self, at_once: usize) -> Load {
        Load { at_once, operations: self.sizes.operations, limit: self.limit }
    }

    async fn register_many(&self, count: usize) -> Result<Vec<Session>, CallError> {
        stream::iter(0..count).map(|_| self.server.register()).buffered(SETUP_AT_ONCE).try_collect().await
    }

    /// A public room of the first of `members`, joined by the others.
    async fn room_of(&self, members: &[Session]) -> Result<String, CallError> {
        let [creator, others @ ..] = members else {
            return Err(CallError::Answer("a member"));
        };
        let room_id = self.server.create_room(creator, &public_room()).await?;
        stream::iter(others)
            .map(|member| self.server.join(member, &room_id))
            .buffer_unordered(SETUP_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(room_id)
    }

    async fn send_many(&self, session: &Session, room_id: &str, count: usize) -> Result<(), CallError> {
        stream::iter(0..count)
            .map(|_| async { self.server.send(session, room_id).await.map(drop) })
            .buffer_unordered(SETUP_AT_ONCE)
            .try_collect::<()>()
            .await
    }
}

fn public_room() -> Value {
    json!({"preset": "public_chat"})
}

/// The element that the operation of this number uses, going round.
fn pick<T>(items: &[T], number: u64) -> &T {
    &items[number as usize % items.len()]
}
