//! A real name server (BIND) with the zone `example.org`.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::edge::patiently;

/// Where it listens.
pub(super) const ADDRESS: &str = "127.0.0.1:53";

/// A running name server.
pub(super) struct NameServer {
    _folder: TempDir,
    _process: Child,
}

impl NameServer {
    /// Serves these records and waits until it does.
    pub(super) async fn start(records: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let zone = format!(
            "$TTL 60\n@ IN SOA ns.example.org. root.example.org. 1 3600 600 86400 60\n@ IN NS ns\nns IN A 127.0.0.1\n{}\n",
            records.join("\n")
        );
        // BIND would mend or refuse some of the mistakes that are to be found.
        let config = format!(
            "options {{ directory \"{path}\"; listen-on port 53 {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no;\n\
             dnssec-validation no; notify no; pid-file none; session-keyfile \"{path}/session.key\"; check-integrity no; }};\n\
             controls {{ }};\nzone \"example.org\" {{ type primary; file \"{path}/zone\"; check-names ignore; }};\n"
        );
        std::fs::write(folder.path().join("zone"), zone).unwrap();
        let file = folder.path().join("named.conf");
        std::fs::write(&file, config).unwrap();
        let mut process = Command::new("named")
            .args(["-g", "-n", "1", "-c"])
            .arg(&file)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the tests' setup installs bind9");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut told = String::new();
        patiently("the name server", async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.ends_with(" running") {
                    return;
                }
                told.push_str(&line);
                told.push('\n');
            }
            panic!("the name server ended:\n{told}");
        })
        .await;
        // It must not stop for a pipe that nobody reads.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        assert!(!told.contains("not loaded due to errors"), "{told}");
        Self { _folder: folder, _process: process }
    }
}
