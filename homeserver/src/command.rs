//! The command line.

use std::{
    error::Error,
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use gatehouse_shared::{
    clock::{Clock, SystemClock},
    config::ConfigError,
    metrics,
    net::ListenAddr,
    shutdown,
    telemetry::{self, TelemetryError},
};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::{NewUser, RegisterError, create_user},
    app::{self, App, StartError},
    config::{self, Config},
    server::{self, BindError, Listener},
    storage::{Db, DbConfig, DbError, UserNames, nid::Nids},
};

/// How long a shard that ends keeps taking requests, so that edges see that it is not healthy before it is gone.
const NOTICE: Duration = Duration::from_millis(1500);

/// One shard of a Gatehouse homeserver. It listens for the edge only.
#[derive(Debug, Parser)]
#[command(name = "gatehouse-homeserver", version, about)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Runs the shard until SIGTERM or SIGINT; SIGHUP reads the policy's lists of servers again
    Run(Run),
    /// Checks a configuration and names the file, line and key of every mistake
    Check(Check),
    /// Manages users, beside a running shard or without one
    #[command(subcommand)]
    User(User),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/gatehouse/homeserver.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// Listen here too: unix:/PATH or ADDRESS:PORT; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<ListenAddr>,
    /// End when the standard input ends, as the edge that started this shard wants it
    #[arg(long)]
    supervised: bool,
}

#[derive(Debug, Args)]
struct Check {
    /// The configuration file
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Write the findings as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum User {
    /// Makes a user; the password is asked for, or read from the standard input when that is no terminal
    Create(CreateUser),
}

#[derive(Debug, Args)]
struct CreateUser {
    /// The user name: the part of the user id before the colon
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Make the user an administrator
    #[arg(long)]
    admin: bool,
    /// Read the password from the first line of the standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("logs and traces cannot be set up")]
    Telemetry(#[from] TelemetryError),
    #[error("the shard cannot start")]
    Start(#[from] StartError),
    #[error("the shard cannot start")]
    Bind(#[from] BindError),
    #[error("there is no address to listen on: give --listen, or listen.addresses in the configuration")]
    NoAddress,
    #[error("the user was not made")]
    Register(#[from] RegisterError),
    #[error("the database cannot be used")]
    Db(#[from] DbError),
    #[error("the password cannot be read")]
    Password(#[source] io::Error),
    #[error("the two passwords differ")]
    PasswordsDiffer,
    #[error("the system refuses to run this program")]
    System(#[from] io::Error),
}

impl Command {
    /// Does what the command line says.
    ///
    /// # Errors
    /// When it cannot be done. Mistakes that `check` finds are its result, not an error.
    pub fn execute(self) -> Result<ExitCode, CommandError> {
        // Fails only when a provider is installed already, which is then the same: it is the only one in the tree.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        match self.action {
            Action::Run(run) => run.execute(),
            Action::Check(Check { config, json }) => Ok(check(&config, json)),
            Action::User(User::Create(create)) => create.execute(),
        }
    }
}

impl Run {
    fn execute(self) -> Result<ExitCode, CommandError> {
        let config = config::load(&self.file.config)?;
        // Dropped last, outside of the runtime: it waits for the last spans to be sent.
        let _guard = telemetry::init(&config.telemetry, "gatehouse-homeserver")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(self.serve(config))
    }

    async fn serve(self, config: Config) -> Result<ExitCode, CommandError> {
        let signals = shutdown::on_signals()?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (abandoned, told) = (CancellationToken::new(), Arc::new(Notify::new()));
        if self.supervised {
            listen_to_stdin(abandoned.clone(), told.clone())?;
        }
        let addresses: Vec<&ListenAddr> = config.listen.addresses.iter().chain(&self.listen).collect();
        if addresses.is_empty() {
            return Err(CommandError::NoAddress);
        }
        let app = App::start(&config, Arc::new(SystemClock)).await?;
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            let listener = Listener::bind(address).await?;
            tracing::info!(address = %listener.address()?, "listening");
            listeners.push(listener);
        }
        serve_metrics(&config, &app).await;
        let closing = CancellationToken::new();
        let served = tokio::spawn(server::serve(listeners, app.router(), closing.clone()));
        loop {
            tokio::select! {
                () = signals.cancelled() => {
                    app.draining().begin();
                    tokio::time::sleep(NOTICE).await;
                    break;
                }
                // Whoever started us has stopped sending requests, or is gone.
                () = abandoned.cancelled() => {
                    app.draining().begin();
                    break;
                }
                _ = hangup.recv() => reload(&app),
                () = told.notified() => reload(&app),
            }
        }
        closing.cancel();
        if let Err(error) = served.await {
            tracing::error!(%error, "serving ended badly");
        }
        app.stop().await;
        tracing::info!("ended");
        Ok(ExitCode::SUCCESS)
    }
}

fn reload(app: &App) {
    match app.reload() {
        Ok(()) => tracing::info!("the lists of servers were read again"),
        Err(error) => tracing::error!(error = with_sources(&error), "the lists of servers stay as they were"),
    }
}

/// Cancels `ended` when the standard input ends; whatever comes before is the edge's word to read again what can be.
fn listen_to_stdin(ended: CancellationToken, told: Arc<Notify>) -> io::Result<()> {
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut buffer = [0; 512];
        let mut stdin = io::stdin().lock();
        // An error means that there is nobody at the other end either.
        while stdin.read(&mut buffer).is_ok_and(|read| read > 0) {
            told.notify_one();
        }
        ended.cancel();
    })?;
    Ok(())
}

/// Shards that share one configuration want the same address; the first one has it, and the others go on without.
async fn serve_metrics(config: &Config, app: &App) {
    let Some(address) = config.telemetry.metrics_address else { return };
    match tokio::net::TcpListener::bind(address).await {
        Ok(listener) => {
            let draining = app.draining().clone();
            let healthy = move || !draining.has_begun();
            tokio::spawn(metrics::serve(listener, app.registry(), Arc::new(healthy), CancellationToken::new()));
        }
        Err(error) => tracing::warn!(%address, %error, "metrics are not served"),
    }
}

fn check(path: &Path, as_json: bool) -> ExitCode {
    let outcome = config::load(path);
    if as_json {
        let (mistakes, error) = match &outcome {
            Ok(_) => (&[][..], None),
            Err(error @ ConfigError::Read { .. }) => (&[][..], Some(with_sources(error))),
            Err(error) => (error.mistakes(), None),
        };
        println!("{}", json!({ "file": path, "ok": outcome.is_ok(), "mistakes": mistakes, "error": error }));
    } else {
        match &outcome {
            Ok(_) => println!("{}: no mistakes", path.display()),
            Err(error) => println!("{}", with_sources(error)),
        }
    }
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl CreateUser {
    fn execute(self) -> Result<ExitCode, CommandError> {
        let config = config::load(&self.file.config)?;
        let password = self.password()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let user_id = runtime.block_on(self.create(&config, password))?;
        println!("{user_id}");
        Ok(ExitCode::SUCCESS)
    }

    fn password(&self) -> Result<String, CommandError> {
        if self.password_stdin || !io::stdin().is_terminal() {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map_err(CommandError::Password)?;
            return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
        }
        let ask = |prompt: &str| rpassword::prompt_password(prompt).map_err(CommandError::Password);
        let password = ask("Password: ")?;
        if password != ask("The same again: ")? {
            return Err(CommandError::PasswordsDiffer);
        }
        Ok(password)
    }

    /// Opens the database beside the shard that may run on it.
    async fn create(&self, config: &Config, password: String) -> Result<String, CommandError> {
        app::make_folder(&config.data_folder)?;
        let db = Db::open(&alone(app::db_config(config))).await?;
        let names = UserNames::new(db.clone(), Nids::new(db.clone()));
        let user =
            NewUser { localpart: self.name.clone(), password: Some(password), displayname: None, is_admin: self.admin };
        let now = SystemClock.now_ms();
        let (_, user_id) = create_user(&db, &names, &app::passwords(), &config.server_name, now, user).await?;
        Ok(user_id.into())
    }
}

/// As few connections as can be.
fn alone(config: DbConfig) -> DbConfig {
    match config {
        DbConfig::Sqlite { path, .. } => DbConfig::Sqlite { path, readers: 1 },
        DbConfig::Postgres { url, .. } => DbConfig::Postgres { url, connections: 2 },
    }
}

/// An error with everything that led to it, in one line.
pub fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
