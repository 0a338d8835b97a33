//! Starts a real Synapse on SQLite with TLS, which federates with whom a test wants.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::keeper::{self, Kept, installed};
use crate::ports::free_port;
use crate::tls::TestCa;

/// How long Synapse may take to start.
const START_LIMIT: Duration = Duration::from_secs(90);

/// The secret for registration by Synapse's admin API.
pub const REGISTRATION_SECRET: &str = "synapse's registration secret";

/// A Synapse, running or stopped. Dropping it ends it.
#[derive(Debug)]
pub struct Synapse {
    folder: TempDir,
    port: u16,
    process: Option<Kept>,
}

impl Synapse {
    /// Makes a new Synapse with certificates of `authority`; it trusts other servers by the authorities in `trusted`.
    ///
    /// # Panics
    /// When Synapse is not installed (see `interop/setup.sh`) or does not start, with its log.
    pub fn start(authority: &TestCa, trusted: &[PathBuf]) -> Self {
        let folder = keeper::folder("gatehouse-synapse-");
        let mut synapse = Self { folder, port: free_port(), process: None };
        synapse.write_configuration(authority, trusted);
        let generated = synapse.command().arg("--generate-keys").output().expect("Synapse was found");
        assert!(generated.status.success(), "Synapse: {}", String::from_utf8_lossy(&generated.stderr));
        synapse.resume();
        synapse
    }

    /// The base URL for clients, which is the one for other servers as well.
    pub fn base_url(&self) -> String {
        format!("https://{}", self.server_name())
    }

    /// The server name: an address with a port, so that nobody asks DNS for it.
    pub fn server_name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops Synapse and waits until it has ended.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop();
        }
    }

    /// Starts Synapse again after [`Synapse::stop`], and waits until it listens.
    ///
    /// # Panics
    /// When it does not start, with its log.
    pub fn resume(&mut self) {
        // Synapse tells systemd when it is ready, and would tell whoever listens at this socket.
        let socket = self.folder.path().join("ready");
        let _ = fs::remove_file(&socket);
        let ready = UnixDatagram::bind(&socket).expect("the temporary folder is writable");
        ready.set_read_timeout(Some(Duration::from_millis(500))).expect("the limit is not zero");
        let output = fs::File::options().create(true).append(true).open(self.output()).expect("the folder is writable");
        let mut command = self.command();
        command.env("NOTIFY_SOCKET", &socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let mut process = Kept::start(&mut command);
        let deadline = Instant::now() + START_LIMIT;
        let mut message = [0; 256];
        while !ready.recv(&mut message).is_ok_and(|length| message[..length].starts_with(b"READY=1")) {
            let ended = process.child().try_wait().is_ok_and(|status| status.is_some());
            let log = || fs::read_to_string(self.output()).unwrap_or_default();
            assert!(!ended && Instant::now() < deadline, "Synapse does not start:\n{}", log());
        }
        self.process = Some(process);
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(installed("synapse/bin/synapse_homeserver"));
        command.args(["--config-path", "homeserver.yaml"]).current_dir(self.folder.path());
        command
    }

    fn write_configuration(&self, authority: &TestCa, trusted: &[PathBuf]) {
        let folder = self.folder.path().display();
        let (port, name) = (self.port, self.server_name());
        let (chain, key) = (authority.chain.display(), authority.key.display());
        let authorities: String = trusted.iter().map(|file| format!("\n  - {}", file.display())).collect();
        let configuration = format!(
            r#"
server_name: "{name}"
report_stats: false
pid_file: {folder}/pid
signing_key_path: {folder}/signing.key
media_store_path: {folder}/media
log_config: {folder}/log.yaml
tls_certificate_path: {chain}
tls_private_key_path: {key}
listeners:
  - {{port: {port}, bind_addresses: [127.0.0.1], type: http, tls: true, resources: [{{names: [client, federation]}}]}}
database: {{name: sqlite3, args: {{database: {folder}/homeserver.db}}}}
registration_shared_secret: "{REGISTRATION_SECRET}"
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
trusted_key_servers: []
suppress_key_server_warning: true
ip_range_blacklist: []
federation_custom_ca_list: {authorities}
federation: {{destination_min_retry_interval: 1s, destination_max_retry_interval: 2s}}
presence: {{enabled: false}}
rc_message: &lots {{per_second: 100000, burst_count: 100000}}
rc_registration: *lots
rc_room_creation: *lots
rc_login: {{address: *lots, account: *lots, failed_attempts: *lots}}
rc_joins: {{local: *lots, remote: *lots}}
rc_joins_per_room: *lots
rc_invites: {{per_room: *lots, per_user: *lots, per_issuer: *lots}}
rc_federation: {{window_size: 1000, sleep_limit: 100000, sleep_delay: 1, reject_limit: 100000, concurrent: 100}}
"#
        );
        let log = format!(
            r#"
version: 1
formatters: {{line: {{format: "%(asctime)s %(name)s %(levelname)s %(request)s %(message)s"}}}}
filters: {{context: {{(): synapse.logging.context.LoggingContextFilter, request: ""}}}}
handlers: {{file: {{class: logging.FileHandler, filename: {folder}/output, formatter: line, filters: [context]}}}}
root: {{level: WARNING, handlers: [file]}}
"#
        );
        write(&self.folder.path().join("homeserver.yaml"), &configuration);
        write(&self.folder.path().join("log.yaml"), &log);
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.output()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of Synapse's log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the temporary folder is writable");
}
