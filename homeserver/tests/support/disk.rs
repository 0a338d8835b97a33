//! Small disks that a test can fill: a tmpfs in a mount namespace of the edge and its shards, which goes when they end.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A disk for one part of what a deployment keeps.
#[derive(Debug, Clone, Copy)]
pub struct SmallDisk {
    /// How much fits onto it.
    pub bytes: u64,
    /// What is kept there.
    pub holds: Holds,
}

/// What a small disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// The SQLite file.
    Database,
    /// The folder of media.
    Media,
}

/// Mounts `$1` bytes at `$2` for the rest of the command line alone.
const WITH_DISK: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@""#;

/// Whether this process may make small disks; says why not on standard error. Continuous integration is root, and may.
pub fn is_permitted() -> bool {
    let folder = crate::keeper::folder("gatehouse-disk-");
    let disk = SmallDisk { bytes: 1 << 20, holds: Holds::Media };
    let tried = disk.command(folder.path(), Path::new("true")).stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIPPED: only who may mount a tmpfs in a namespace of its own can run this test: {reason}");
            false
        }
        Err(error) => {
            eprintln!("SKIPPED: this test needs unshare, of the Debian package util-linux: {error}");
            false
        }
    }
}

impl SmallDisk {
    /// The command that runs `program` with the disk at `folder`, which nobody else sees.
    pub(crate) fn command(self, folder: &Path, program: &Path) -> Command {
        fs::create_dir_all(folder).expect("the temporary folder is writable");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", WITH_DISK, "with-disk"]);
        command.arg(self.bytes.to_string()).arg(folder).arg(program);
        command
    }
}

/// A small disk, seen through a process that has it.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    pub(crate) fn seen_by(pid: u32, folder: &Path) -> Self {
        let relative = folder.strip_prefix("/").expect("temporary folders have absolute paths");
        Self { folder: Path::new("/proc").join(pid.to_string()).join("root").join(relative) }
    }

    /// Takes all the room that is left.
    ///
    /// # Panics
    /// When something else than a lack of room stops that.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).expect("the disk is there");
        for size in [1 << 16, 1 << 9, 1] {
            let bytes = vec![b'x'; size];
            loop {
                match ballast.write(&bytes) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("the disk cannot be filled: {error}"),
                }
            }
        }
    }

    /// Gives back what [`Disk::fill`] took.
    ///
    /// # Panics
    /// When that was not called.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("the disk was filled before");
    }

    /// The size of a file on the disk, in bytes; 0 when it is not there.
    pub fn size_of(&self, name: &str) -> u64 {
        fs::metadata(self.folder.join(name)).map_or(0, |metadata| metadata.len())
    }

    /// The names of the files in a folder on the disk.
    pub fn files_in(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}
