//! Starts Gatehouse as its users do: the real edge, which supervises real shards, on free ports with a folder of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::chance;
use crate::disk::{Disk, Holds, SmallDisk};
use crate::keeper::{self, Kept, children_of};
use crate::ports::free_port;

/// The environment variable that names a folder with both programs, for tests of a build made elsewhere.
const PROGRAMS_VARIABLE: &str = "GATEHOUSE_TEST_PROGRAMS";

/// The engine below the shards.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file in the deployment's folder.
    Sqlite,
    /// A PostgreSQL URL, as [`crate::postgres::Postgres::create_database`] returns it.
    Postgres(String),
}

/// What a deployment is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many shards; SQLite takes one.
    pub shards: u16,
    /// The engine below them.
    pub database: Database,
    /// A file with certificate authorities of other servers that are trusted.
    pub trusted_ca: Option<PathBuf>,
    /// A disk of its own that can be filled, for one part of what is kept. See [`disk::is_permitted`].
    pub disk: Option<SmallDisk>,
    /// The base URL of an OpenTelemetry collector.
    pub collector: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { shards: 1, database: Database::Sqlite, trusted_ca: None, disk: None, collector: None }
    }
}

/// A running edge with its shards. Everybody may register, and the loopback may be called. Dropping it ends everything.
#[derive(Debug)]
pub struct Deployment {
    folder: TempDir,
    shards: u16,
    disk: Option<SmallDisk>,
    https: u16,
    federation: u16,
    edge: Option<Kept>,
}

/// The secret for registration by Synapse's admin API.
pub const REGISTRATION_SECRET: &str = "a registration secret for tests only";

impl Deployment {
    /// Makes a new deployment and starts it. Requests are held by the edge until a shard has started.
    ///
    /// # Panics
    /// When the edge does not start, with its log.
    pub fn start(options: &Options) -> Self {
        let folder = keeper::folder("gatehouse-test-");
        let mut deployment = Self {
            folder,
            shards: options.shards,
            disk: options.disk,
            https: free_port(),
            federation: free_port(),
            edge: None,
        };
        deployment.write_configuration(options);
        deployment.resume();
        deployment
    }

    /// The base URL for clients.
    pub fn base_url(&self) -> String {
        format!("https://localhost:{}", self.https)
    }

    /// The server name, whose port is that for other servers.
    pub fn server_name(&self) -> String {
        format!("localhost:{}", self.federation)
    }

    /// The file with the development CA that signed the edge's certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca/ca.pem")
    }

    /// The shards' configuration file, for commands on the deployment's database.
    pub fn homeserver_config(&self) -> PathBuf {
        self.folder.path().join("homeserver.toml")
    }

    /// The edge's process id.
    ///
    /// # Panics
    /// When the deployment is stopped.
    pub fn edge_pid(&self) -> u32 {
        self.edge.as_ref().expect("the deployment runs").pid()
    }

    /// The process id of the shard with this number, counted from 1; none while it is being started.
    pub fn shard_pid(&self, number: u16) -> Option<u32> {
        let socket = format!("shard-{number}.sock");
        let children = children_of(self.edge_pid());
        children.into_iter().find(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(&socket)
        })
    }

    /// Kills the shard with this number, counted from 1, by SIGKILL, and waits until it is gone; the edge starts it again.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill_shard(&self, number: u16) {
        let pid = self.shard_pid(number).unwrap_or_else(|| panic!("shard {number} does not run\n{}", self.log()));
        keeper::kill_and_wait(pid).await;
    }

    /// Stops the edge and its shards as an operator does, and waits until they have ended.
    ///
    /// # Panics
    /// When they end badly.
    pub fn stop(&mut self) {
        if let Some(edge) = self.edge.take() {
            edge.stop();
        }
    }

    /// Starts the edge and its shards again after [`Deployment::stop`].
    ///
    /// # Panics
    /// When the edge does not start, with its log.
    pub fn resume(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the temporary folder is writable");
        let mut command = match self.disk {
            None => Command::new(program("gatehouse")),
            Some(disk) => disk.command(&self.disk_folder(), &program("gatehouse")),
        };
        command.arg("run").arg("--json").arg("--config").arg(self.folder.path().join("edge.toml"));
        let mut edge = Kept::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log));
        // The pipe stays open, so that nobody who writes to it later is in for a surprise.
        let output = edge.child().stdout.as_mut().expect("standard output was piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("the edge writes UTF-8");
        assert!(line.contains("listening"), "the edge does not start:\n{}", self.log());
        self.edge = Some(edge);
    }

    /// Stops and starts the edge and its shards.
    ///
    /// # Panics
    /// As [`Deployment::stop`] and [`Deployment::resume`].
    pub fn restart(&mut self) {
        self.stop();
        self.resume();
    }

    /// What the edge and the shards have written to standard error, at most the last 150 lines.
    pub fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(150)..].join("\n")
    }

    /// The small disk while the deployment runs.
    ///
    /// # Panics
    /// When the deployment has none.
    pub fn disk(&self) -> Disk {
        assert!(self.disk.is_some(), "the deployment was given no disk");
        Disk::seen_by(self.edge_pid(), &self.disk_folder())
    }

    fn disk_folder(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn write_configuration(&self, options: &Options) {
        let folder = self.folder.path();
        let secret: String = (0..4).map(|_| format!("{:016x}", chance::random())).collect();
        write(&folder.join("cluster-secret"), &secret);
        write(&folder.join("edge.toml"), &(self.edge_toml() + &telemetry(options)));
        write(&folder.join("homeserver.toml"), &(self.homeserver_toml(options) + &telemetry(options)));
    }

    fn holds(&self, what: Holds) -> bool {
        self.disk.is_some_and(|disk| disk.holds == what)
    }

    fn edge_toml(&self) -> String {
        let Self { shards, https, federation, .. } = self;
        let folder = self.folder.path().display();
        let homeserver = program("gatehouse-homeserver");
        let homeserver = homeserver.display();
        let (name, base_url) = (self.server_name(), self.base_url());
        format!(
            r#"
[server]
name = "{name}"
base_url = "{base_url}"
federation_address = "{name}"

[control]
socket = "{folder}/control.sock"

[listen]
https = ["127.0.0.1:{https}"]
federation = ["127.0.0.1:{federation}"]

[tls.development_ca]
folder = "{folder}/ca"

[upstream]
cluster_secret = {{ file = "{folder}/cluster-secret" }}

[supervise]
shards = {shards}
program = "{homeserver}"
config = "{folder}/homeserver.toml"
socket_folder = "{folder}/sockets"
"#
        )
    }

    fn homeserver_toml(&self, options: &Options) -> String {
        let folder = self.folder.path().display();
        let name = self.server_name();
        let database = match &options.database {
            Database::Sqlite if self.holds(Holds::Database) => format!("sqlite = \"{folder}/disk/gatehouse.db\""),
            Database::Sqlite => format!("sqlite = \"{folder}/gatehouse.db\""),
            Database::Postgres(url) => format!("postgres = \"{url}\""),
        };
        let media = if self.holds(Holds::Media) { format!("folder = \"{folder}/disk/media\"") } else { String::new() };
        let trusted = options.trusted_ca.as_ref().map(|file| format!("ca_file = \"{}\"", file.display()));
        let trusted = trusted.unwrap_or_default();
        format!(
            r#"
server_name = "{name}"
data_folder = "{folder}/data"
cluster_secret = {{ file = "{folder}/cluster-secret" }}

[database]
{database}

[media]
{media}

[registration]
mode = "open"
shared_secret = "{REGISTRATION_SECRET}"

[federation]
{trusted}
allowed_ranges = ["127.0.0.0/8", "::1/128"]
"#
        )
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of the log of {}:\n{}", self.server_name(), self.log());
        }
    }
}

fn telemetry(options: &Options) -> String {
    options.collector.as_ref().map_or_else(String::new, |url| format!("\n[telemetry]\notlp_endpoint = \"{url}\"\n"))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the temporary folder is writable");
}

/// A program of this build. Cargo does not build another package's programs for a test, so they are built here.
fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os(PROGRAMS_VARIABLE) {
            return PathBuf::from(folder);
        }
        let folder = keeper::programs();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.env("CARGO_TARGET_DIR", folder.parent().unwrap_or(Path::new("/")));
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().is_ok_and(|status| status.success()), "the programs cannot be built");
        folder
    });
    let program = folder.join(name);
    assert!(program.is_file(), "{} is missing", program.display());
    program
}
