//! Builds a shard bottom-up: database, stream, domain rooms, HTTP. The one place that knows all of them.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use gatehouse_shared::{
    clock::Clock,
    config::ConfigError,
    contract::ClusterSecret,
    servers::{ServerNames, ServerPolicy},
};
use prometheus_client::registry::Registry;
use ruma::RoomId;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accounts::{Accounts, Parts as AccountsParts, Passwords, RegistrationPolicy, Turn, TurnOptions},
    api::{self, ApiState, Draining, Gate, HttpMetrics},
    config::{Config, RegistrationMode, SECRET_VARIABLE},
    e2ee::{E2ee, E2eeParts},
    ephemeral::{Ephemeral, EphemeralParts},
    federation::{
        Federation, FederationParts,
        sender::{Sender, SenderParts},
    },
    media::{Media, MediaOptions, Unauthenticated},
    membership::Membership,
    moderation::Moderation,
    remote::{
        Destinations, FederationClient, KeyRing, RemoteConfig, RequestAuth, SigningKey, client::ClientError,
        config::OldSigningKey, signing_key::SigningKeyError,
    },
    rooms::{Rooms, RoomsParts},
    storage::{Db, DbConfig, DbError, UserNames, db::DbLock, event_cache::EventCache, nid::Nids},
    stream::Stream,
    sync::{SyncParts, Syncer, room::HistorySource},
};

/// How long background tasks may take to write what they still hold.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A running shard, without its listeners.
pub struct App {
    router: Router,
    registry: Arc<Registry>,
    draining: Draining,
    /// The file that says which servers are called, and who has to know.
    policy: Option<PathBuf>,
    client: FederationClient,
    tasks: TaskTracker,
    /// Ends the background tasks.
    stop: CancellationToken,
    /// Held for as long as the shard runs.
    _lock: Option<DbLock>,
}

/// Why the shard cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot make the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(
        "there is no cluster secret: give cluster_secret in the configuration, or {SECRET_VARIABLE} in the environment"
    )]
    NoSecret,
    #[error("the cluster secret must have at least {} bytes", ClusterSecret::MIN_BYTES)]
    ShortSecret,
    #[error("the policy cannot be used (federation.policy)")]
    Policy(#[from] ConfigError),
    #[error("the media folder {} cannot be used", path.display())]
    MediaFolder { path: PathBuf, source: io::Error },
    #[error("the database cannot be used")]
    Db(#[from] DbError),
    #[error("the signing key cannot be used")]
    SigningKey(#[from] SigningKeyError),
    #[error("other servers cannot be called")]
    Federation(#[from] ClientError),
}

impl App {
    /// Opens the database, takes a lane and builds every room.
    ///
    /// # Errors
    /// When the database cannot be used or is held by another shard, or the signing key cannot be read or made.
    pub async fn start(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        make_folder(&config.data_folder)?;
        let secret = config.cluster_secret().ok_or(StartError::NoSecret)?;
        let secret = ClusterSecret::new(&secret).ok_or(StartError::ShortSecret)?;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let draining = Draining::default();

        let db_config = db_config(config);
        let lock = match &db_config {
            DbConfig::Sqlite { path, .. } => Some(DbLock::take(path)?),
            DbConfig::Postgres { .. } => None,
        };
        let db = Db::open(&db_config).await?;
        let nids = Nids::new(db.clone());
        let names = UserNames::new(db.clone(), nids.clone());

        let stream = Stream::open(db.clone()).await?;
        let lane = stream.start(clock.clone(), stop.clone()).await?;

        let events = EventCache::default();
        let remote_config = remote_config(config);
        let key = SigningKey::open(&config.signing_key(), config.server_name.clone(), &remote_config)?;
        let destinations = Destinations::new(db.clone(), clock.clone());
        let client = FederationClient::new(&remote_config, key.clone(), destinations, clock.clone())?;
        if let Some(path) = &config.federation.policy {
            client.set_servers(ServerNames::new(&ServerPolicy::load(path)?));
        }
        let key_ring =
            KeyRing::new(db.clone(), client.clone(), key.clone(), remote_config.trusted_key_servers, clock.clone());

        let rooms = Rooms::new(RoomsParts {
            db: db.clone(),
            nids: nids.clone(),
            names: names.clone(),
            event_cache: events.clone(),
            lane: lane.clone(),
            stream: stream.clone(),
            server_name: config.server_name.clone(),
            signing_key: key.shared_pair(),
            clock: clock.clone(),
        });
        let options = media_options(config);
        let remote = config.federation.enabled.then(|| client.clone());
        let folder = options.folder.clone();
        let media = Media::open(db.clone(), clock.clone(), config.server_name.clone(), options, remote)
            .await
            .map_err(|source| StartError::MediaFolder { path: folder, source })?;
        tasks.spawn(rooms.clone().follow(stop.clone()));
        let moderation = Moderation::new(db.clone(), rooms.clone(), clock.clone());
        let turn = Turn::new(clock.clone(), turn_options(config));
        let e2ee = E2ee::new(E2eeParts {
            db: db.clone(),
            names: names.clone(),
            lane: lane.clone(),
            stream: stream.clone(),
            server_name: config.server_name.clone(),
            clock: clock.clone(),
        })
        .asking(client.clone());
        let ephemeral = Ephemeral::new(EphemeralParts {
            db: db.clone(),
            names: names.clone(),
            lane: lane.clone(),
            clock: clock.clone(),
        });
        tasks.spawn(ephemeral.clone().end_orphaned_typing(stop.clone()));
        let federation = Federation::new(FederationParts {
            db: db.clone(),
            nids,
            names: names.clone(),
            rooms: rooms.clone(),
            request_auth: RequestAuth::new(key.clone(), key_ring.clone()),
            key,
            key_ring,
            client: client.clone(),
            e2ee: e2ee.clone(),
            ephemeral: ephemeral.clone(),
            clock: clock.clone(),
        });
        let sender = Sender::new(SenderParts {
            db: db.clone(),
            names: names.clone(),
            stream: stream.clone(),
            client: client.clone(),
            e2ee: e2ee.clone(),
            federation: federation.clone(),
            server_name: config.server_name.clone(),
            clock: clock.clone(),
        });
        if config.federation.enabled {
            tasks.spawn(sender.run(stop.clone()));
        }
        let sync = Syncer::new(SyncParts {
            db: db.clone(),
            stream: stream.clone(),
            names: names.clone(),
            events,
            history: Some(Arc::new(HistoryOfOthers(federation.clone()))),
            shutdown: draining.token(),
            clock: clock.clone(),
        });
        let membership = Membership::new(db.clone(), names.clone(), rooms.clone(), federation.clone());
        let accounts = Accounts::start(
            AccountsParts {
                server_name: config.server_name.clone(),
                db,
                names,
                stream,
                lane,
                membership: membership.clone(),
                clock,
                policy: policy(config),
                passwords: passwords(),
            },
            &tasks,
            &stop,
        );

        let mut registry = Registry::default();
        let gate = Gate::new(secret, draining.clone(), HttpMetrics::register(&mut registry), &config.server_name);
        let state = ApiState {
            accounts,
            draining: draining.clone(),
            e2ee,
            ephemeral,
            federation,
            media,
            membership,
            moderation,
            rooms,
            sync,
            turn,
        };
        let router = api::router(state, gate);
        let policy = config.federation.policy.clone();
        Ok(Self { router, registry: Arc::new(registry), draining, policy, client, tasks, stop, _lock: lock })
    }

    /// Reads the policy's lists of servers again and uses them from now on.
    ///
    /// # Errors
    /// When they cannot be read or hold mistakes; then the ones before hold.
    pub fn reload(&self) -> Result<(), ConfigError> {
        if let Some(path) = &self.policy {
            self.client.set_servers(ServerNames::new(&ServerPolicy::load(path)?));
        }
        Ok(())
    }

    /// Everything that is served.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// What is counted.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    /// Begins or watches the shard's end: no new work, and long polls end early.
    pub fn draining(&self) -> &Draining {
        &self.draining
    }

    /// Ends the background tasks, which write what they still hold. Call it when no request is left.
    pub async fn stop(self) {
        self.draining.begin();
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("some background tasks did not end in time");
        }
    }
}

/// What the storage room opens; a SQLite file stands in the data folder unless the configuration says otherwise.
pub fn db_config(config: &Config) -> DbConfig {
    let database = &config.database;
    match &database.postgres {
        Some(url) => DbConfig::Postgres { url: url.expose().to_owned(), connections: database.connections },
        None => DbConfig::Sqlite {
            path: database.sqlite.clone().unwrap_or_else(|| config.data_folder.join("gatehouse.db")),
            readers: database.connections,
        },
    }
}

/// What a reader asks for when our history of a room ends: other servers may have more.
struct HistoryOfOthers(Federation);

impl HistorySource for HistoryOfOthers {
    fn fetch_before<'a>(
        &'a self,
        room_id: &'a RoomId,
        limit: usize,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move {
            self.0.fetch_history(room_id, limit).await.unwrap_or_else(|error| {
                tracing::warn!(error = &error as &dyn std::error::Error, room.id = %room_id, "cannot fetch history");
                false
            })
        })
    }
}

/// The limit on hashing that every process of ours uses: one password per core at a time.
pub fn passwords() -> Passwords {
    Passwords::new(std::thread::available_parallelism().map_or(1, usize::from))
}

/// Makes a folder that only we can enter, unless it is there.
///
/// # Errors
/// When it cannot be made.
pub fn make_folder(path: &Path) -> Result<(), StartError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StartError::Folder { path: path.to_owned(), source })
}

fn policy(config: &Config) -> RegistrationPolicy {
    let shared_secret = config.registration.shared_secret.clone();
    match config.registration.mode {
        RegistrationMode::Open => RegistrationPolicy::Open { shared_secret },
        RegistrationMode::Closed => RegistrationPolicy::Closed { shared_secret },
        RegistrationMode::Token => {
            RegistrationPolicy::Token { tokens: config.registration.tokens.clone(), shared_secret }
        }
    }
}

fn media_options(config: &Config) -> MediaOptions {
    MediaOptions {
        folder: config.media_folder(),
        max_upload_bytes: config.media.max_upload_bytes,
        max_image_pixels: config.media.max_image_pixels,
        unauthenticated: if config.media.serve_unauthenticated {
            Unauthenticated::Served
        } else {
            Unauthenticated::Refused
        },
    }
}

fn remote_config(config: &Config) -> RemoteConfig {
    let old = config.federation.old_signing_keys.iter();
    let old_signing_keys =
        old.map(|(id, old)| (id.clone(), OldSigningKey { key: old.key.clone(), expired_ts: old.expired_ts })).collect();
    RemoteConfig {
        is_enabled: config.federation.enabled,
        extra_ca_files: config.federation.ca_file.iter().cloned().collect(),
        allowed_private_addresses: config.federation.allowed_ranges.clone(),
        trusted_key_servers: config.federation.trusted_key_servers.clone(),
        old_signing_keys,
        ..RemoteConfig::default()
    }
}

fn turn_options(config: &Config) -> Option<TurnOptions> {
    let voip = &config.voip;
    let shared_secret = voip.turn_shared_secret.clone().filter(|_| !voip.turn_uris.is_empty())?;
    let lifetime = Duration::from_secs(voip.turn_lifetime_seconds);
    Some(TurnOptions { uris: voip.turn_uris.clone(), shared_secret, lifetime })
}
