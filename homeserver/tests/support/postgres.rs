//! Starts a PostgreSQL for one test process, on a free port, as a user that is not root, with `fsync` on.
//!
//! [`shared`] starts it on first use, and each test takes a database of its own from it. The server and its folder go
//! when the test process goes, even by SIGKILL. Test binaries that run side by side have one server each.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::keeper::{children_of, signal};
use crate::ports::free_port;

/// The superuser of the server; connections from this machine need no password.
const USER: &str = "gatehouse";

/// How often a start is tried on another port when somebody took the port first.
const PORT_ATTEMPTS: u32 = 5;

/// Starts the server, says how that went in one line, waits until its standard input is closed, and cleans up.
///
/// A shell does this and not the test process, since the test process may be killed.
const KEEPER: &str = r#"
trap '' INT TERM HUP
if "$1/pg_ctl" start -w -s -t 60 -D "$2/data" -l "$2/log" -o "$3" >>"$2/log" 2>&1 </dev/null
then echo ready
else echo failed
fi
cat >/dev/null
# A test that was killed may have left the server frozen.
read -r pid <"$2/data/postmaster.pid" && kill -s CONT "$pid" $(cat "/proc/$pid/task/$pid/children") 2>/dev/null
"$1/pg_ctl" stop -w -s -m immediate -D "$2/data" >/dev/null 2>&1 </dev/null
rm -rf "$2"
"#;

/// A running PostgreSQL server that belongs to this process.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    owner: Option<Owner>,
    port: u16,
    next_database: AtomicU32,
    keeper: Child,
    /// Held open for as long as the server shall run.
    leash: Option<ChildStdin>,
}

/// The user that the server runs as when the tests run as root, which PostgreSQL refuses to run as.
#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

/// The server of this test process, started by the first call. It runs until the process ends.
///
/// # Panics
/// When PostgreSQL is not installed or does not start, with the reason and what to install.
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(Postgres::start)
}

impl Postgres {
    /// Starts a server of one's own, for a test that stops it. It ends when the value is dropped.
    ///
    /// # Panics
    /// As [`shared`].
    pub fn start() -> Self {
        let programs = find_programs().unwrap_or_else(|| {
            panic!("PostgreSQL is needed for this test: install the Debian package `postgresql`, or put its `initdb` and `pg_ctl` on the PATH")
        });
        let owner = owner();
        let folder = make_folder(owner);
        initialise(&programs, &folder, owner);
        for _ in 0..PORT_ATTEMPTS {
            let port = free_port();
            let (keeper, leash, ready) = start_keeper(&programs, &folder, owner, port);
            let server = Self {
                programs: programs.clone(),
                folder: folder.clone(),
                owner,
                port,
                next_database: AtomicU32::new(1),
                keeper,
                leash: Some(leash),
            };
            if ready {
                return server;
            }
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(log.contains("could not bind"), "PostgreSQL did not start:\n{log}");
            // Dropping the server removes the folder, so the next attempt begins with a new one.
            drop(server);
            fs::create_dir_all(&folder).expect("the temporary folder can be made again");
            give_to(&folder, owner);
            initialise(&programs, &folder, owner);
        }
        panic!("PostgreSQL found no free port in {PORT_ATTEMPTS} attempts");
    }

    /// Makes a new, empty database and returns its URL, `postgres://USER@127.0.0.1:PORT/NAME`.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", self.next_database.fetch_add(1, Ordering::Relaxed));
        let output = self
            .command("createdb")
            .args(["--host=127.0.0.1", "--username", USER, "--port"])
            .arg(self.port.to_string())
            .args(["--template=template0", &name])
            .output()
            .expect("createdb stands beside initdb");
        assert!(output.status.success(), "createdb failed: {}", String::from_utf8_lossy(&output.stderr));
        format!("postgres://{USER}@127.0.0.1:{}/{name}", self.port)
    }

    /// The process id of the server's postmaster; its children are the connections.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn pid(&self) -> u32 {
        fs::read_to_string(self.folder.join("data/postmaster.pid"))
            .ok()
            .and_then(|text| text.lines().next().and_then(|line| line.trim().parse().ok()))
            .expect("postmaster.pid begins with the process id while the server runs")
    }

    /// Ends the server at once, as a crash of its machine would; the data stay.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn crash(&self) {
        self.control(&["stop", "-w", "-s", "-m", "immediate"]);
    }

    /// Starts the server again on the same port after [`Postgres::crash`].
    ///
    /// # Panics
    /// When the server does not start.
    pub fn resume(&self) {
        let options = server_options(self.port);
        let log = self.folder.join("log");
        let log = log.to_str().expect("temporary paths are UTF-8 here");
        self.control(&["start", "-w", "-s", "-t", "60", "-l", log, "-o", &options]);
    }

    /// Stops every process of the server where it is, as a machine does whose disk hangs: connections stand and nothing
    /// answers. The server goes on when the value is dropped.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn freeze(&self) -> Frozen {
        let postmaster = self.pid();
        // The postmaster first, so that it starts nothing new meanwhile.
        signal("STOP", &postmaster.to_string());
        let backends = children_of(postmaster);
        backends.iter().for_each(|pid| signal("STOP", &pid.to_string()));
        Frozen { pids: backends.into_iter().chain([postmaster]).collect() }
    }

    fn control(&self, arguments: &[&str]) {
        let status = self
            .command("pg_ctl")
            .args(arguments)
            .arg("-D")
            .arg(self.folder.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .expect("pg_ctl stands beside initdb");
        assert!(status.success(), "pg_ctl {arguments:?} failed");
    }

    fn command(&self, program: &str) -> Command {
        command(&self.programs, program, &self.folder, self.owner)
    }
}

/// A server that hangs until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Frozen {
    pids: Vec<u32>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.pids.iter().for_each(|pid| signal("CONT", &pid.to_string()));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.leash.take());
        // The keeper ends by itself; a failure to wait for it leaves nothing to do.
        let _ = self.keeper.wait();
    }
}

fn start_keeper(programs: &Path, folder: &Path, owner: Option<Owner>, port: u16) -> (Child, ChildStdin, bool) {
    let mut keeper = as_owner(Command::new("/bin/sh"), folder, owner)
        .args(["-c", KEEPER, "postgres-keeper"])
        .arg(programs)
        .arg(folder)
        .arg(server_options(port))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("/bin/sh starts");
    let leash = keeper.stdin.take().expect("standard input was piped");
    let mut answer = String::new();
    let mut output = BufReader::new(keeper.stdout.take().expect("standard output was piped"));
    output.read_line(&mut answer).expect("the keeper answers in UTF-8");
    (keeper, leash, answer.trim() == "ready")
}

fn server_options(port: u16) -> String {
    let mut options = String::new();
    for (key, value) in [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("max_connections", "300"),
        ("fsync", "on"),
    ] {
        write!(options, "-c {key}='{value}' ").expect("writing to a string does not fail");
    }
    write!(options, "-p {port}").expect("writing to a string does not fail");
    options
}

fn initialise(programs: &Path, folder: &Path, owner: Option<Owner>) {
    let output = command(programs, "initdb", folder, owner)
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", USER])
        .arg("--pgdata")
        .arg(folder.join("data"))
        .output()
        .expect("initdb was found before");
    assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
}

fn command(programs: &Path, program: &str, folder: &Path, owner: Option<Owner>) -> Command {
    as_owner(Command::new(programs.join(program)), folder, owner)
}

fn as_owner(mut command: Command, folder: &Path, owner: Option<Owner>) -> Command {
    command.current_dir(folder).env("LC_ALL", "C");
    if let Some(owner) = owner {
        command.uid(owner.uid).gid(owner.gid);
    }
    command
}

/// The newest installed PostgreSQL's folder of programs: Debian's place first, then the PATH.
fn find_programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let on_path = env::var_os("PATH").unwrap_or_default();
    versions
        .into_iter()
        .rev()
        .map(|(_, folder)| folder)
        .chain(env::split_paths(&on_path))
        .find(|folder| folder.join("initdb").is_file() && folder.join("pg_ctl").is_file())
}

/// Whom the server runs as: nobody else unless this is root, then Debian's `postgres`, or `nobody` without it.
fn owner() -> Option<Owner> {
    let me = fs::metadata("/proc/self").expect("/proc is mounted").uid();
    if me != 0 {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let find = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Owner { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    };
    let owner = find("postgres").or_else(|| find("nobody"));
    Some(owner.expect("an account `postgres` or `nobody` exists"))
}

fn make_folder(owner: Option<Owner>) -> PathBuf {
    let folder = tempfile::Builder::new()
        .prefix("gatehouse-postgres-")
        .tempdir()
        .expect("the temporary folder is writable")
        .keep();
    give_to(&folder, owner);
    folder
}

fn give_to(folder: &Path, owner: Option<Owner>) {
    if let Some(owner) = owner {
        chown(folder, Some(owner.uid), Some(owner.gid)).expect("root may give folders away");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_database_is_new_and_a_crashed_server_resumes_on_its_port() {
        let server = Postgres::start();
        let first = server.create_database();
        assert_ne!(first, server.create_database());
        let before = server.pid();
        server.crash();
        server.resume();
        assert_ne!(before, server.pid());
        assert_ne!(first, server.create_database());
    }

    #[test]
    fn a_dropped_server_leaves_no_folder() {
        let server = Postgres::start();
        let folder = server.folder.clone();
        assert!(folder.is_dir());
        drop(server);
        assert!(!folder.exists());
    }
}
