//! Sees to it that no process and no folder of a test outlives the test process, even when that is killed.
//!
//! One shell per test process reads the process groups and folders to clear from a pipe. The system closes the pipe when
//! the test process is gone; then the shell clears what is left.

use std::fs;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

const KEEPER: &str = r#"
trap '' INT TERM HUP
groups= folders=
while read -r verb item
do
    case $verb in
    kill) groups="$groups $item" ;;
    spare) kept=; for group in $groups; do [ "$group" = "$item" ] || kept="$kept $group"; done; groups=$kept ;;
    remove) folders="$folders
$item" ;;
    esac
done
for group in $groups; do kill -KILL -- "-$group"; done
printf '%s\n' "$folders" | while read -r folder; do [ -z "$folder" ] || rm -rf -- "$folder"; done
"#;

/// A process that leads a group of its own, all of which ends when this value is dropped or the test process is gone.
#[derive(Debug)]
pub struct Kept {
    child: Child,
}

impl Kept {
    /// Starts the command.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let child = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", command.get_program().display()));
        tell(&format!("kill {}", child.id()));
        Self { child }
    }

    /// The process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The process id, which is that of the group as well.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks the process to end by SIGTERM, waits until it has, and says whether it ended as it should.
    ///
    /// # Panics
    /// When it ends in any other way than by exiting with 0 or by that signal.
    pub fn stop(mut self) {
        signal("TERM", &self.pid().to_string());
        let status = self.child.wait().expect("a child can be waited for");
        let by_the_signal = status.signal() == Some(15);
        assert!(status.success() || by_the_signal, "a process ended badly when it was stopped: {status}");
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        signal("KILL", &format!("-{}", self.pid()));
        // A process that ended by itself is collected here as well.
        let _ = self.child.wait();
        tell(&format!("spare {}", self.pid()));
    }
}

/// Kills a process, or a group by its negative number, at once.
pub fn kill(pid: u32) {
    signal("KILL", &pid.to_string());
}

/// Kills a process by SIGKILL, and waits until it is gone with all that it had open.
///
/// # Panics
/// When it does not run.
pub async fn kill_and_wait(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("the process runs");
    pidfd_send_signal(&process, Signal::KILL).expect("the process may be killed");
    // It becomes readable when the process has ended.
    let gone = move || poll(&mut [PollFd::new(&process, PollFlags::IN)], None);
    tokio::task::spawn_blocking(gone).await.expect("a thread can wait").expect("a process can be waited for");
}

/// A temporary folder that is removed even when the test process is killed.
///
/// # Panics
/// When it cannot be made.
pub fn folder(prefix: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().expect("the temporary folder is writable");
    tell(&format!("remove {}", folder.path().display()));
    folder
}

/// Where the programs and packages of other projects are that `interop/setup.sh` installs.
///
/// # Panics
/// When it was not run.
pub fn installed(path: &str) -> PathBuf {
    let target = programs();
    let place = target.parent().unwrap_or(Path::new("/")).join("interop").join(path);
    assert!(place.exists(), "{} is missing: run homeserver/tests/interop/setup.sh first", place.display());
    place
}

/// The folder of the programs that belong to this build, such as `target/debug`.
///
/// # Panics
/// When this is no test of a Cargo package.
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    // A test is target/PROFILE/deps/NAME.
    let folder = test.ancestors().nth(2).expect("a test stands in the folder `deps` of its profile");
    folder.to_owned()
}

pub(crate) fn signal(name: &str, whom: &str) {
    // A process that has ended already is no fault.
    let _ = Command::new("/bin/sh").args(["-c", "kill -s \"$1\" -- \"$2\" 2>/dev/null", "kill", name, whom]).status();
}

/// The processes that `parent` started and that are still its own.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The program's name stands in parentheses and may contain spaces.
        let parent_field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
        parent_field.and_then(|field| field.parse().ok()) == Some(parent)
    };
    processes.filter(is_child).collect()
}

fn tell(line: &str) {
    static KEEPER_PROCESS: OnceLock<Mutex<Child>> = OnceLock::new();
    let keeper = KEEPER_PROCESS.get_or_init(|| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", KEEPER]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Mutex::new(command.process_group(0).spawn().expect("/bin/sh starts"))
    });
    let mut keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
    // Without its keeper a test still works; only a killed one would leave something behind.
    if let Some(input) = keeper.stdin.as_mut() {
        let _ = writeln!(input, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_takes_its_group_along() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped());
        let mut kept = Kept::start(&mut command);
        let mut line = String::new();
        let output = kept.child().stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        let sleeper = PathBuf::from(format!("/proc/{}/status", line.trim()));
        assert!(sleeper.exists());
        drop(kept);
        // The orphan may stay in the table of processes until init has collected it.
        let dead = |status: String| status.lines().any(|line| line.starts_with("State:") && line.contains('Z'));
        let ended = || std::fs::read_to_string(&sleeper).map_or(true, dead);
        while !ended() {
            std::thread::yield_now();
        }
    }
}
