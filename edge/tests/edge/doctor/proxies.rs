//! Real proxies (nginx) that pass requests to each other.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::World;
use crate::own_network::{MATRIX, in_own_network};

/// A running nginx, which is stopped when this is dropped.
struct Nginx {
    folder: TempDir,
}

impl Nginx {
    /// `servers` are its `server` blocks. It listens when this returns: nginx goes to the background only then.
    fn start(world: &World, servers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        std::fs::write(folder.path().join("chain.pem"), &world.matrix.certificate.chain_pem).unwrap();
        std::fs::write(folder.path().join("key.pem"), &world.matrix.certificate.key_pem).unwrap();
        let temporary =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {path}/{kind};"));
        let config = format!(
            "user root; pid {path}/pid; error_log {path}/error.log; worker_processes 1; worker_rlimit_nofile 8192;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; {}\n\
             ssl_certificate {path}/chain.pem; ssl_certificate_key {path}/key.pem;\n\
             client_header_buffer_size 1k; large_client_header_buffers 4 1k;\n\
             proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             {servers} }}\n",
            temporary.join(" ")
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let nginx = Self { folder };
        let started = nginx.command().status().expect("the tests' setup installs nginx");
        let log = || std::fs::read_to_string(nginx.folder.path().join("error.log")).unwrap_or_default();
        assert!(started.success(), "{}", log());
        nginx
    }

    fn command(&self) -> Command {
        let config: PathBuf = self.folder.path().join("nginx.conf");
        let mut command = Command::new("nginx");
        // In the background it would keep the test's own output open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).arg("-c").arg(config);
        command
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.command().args(["-s", "stop"]).status();
    }
}

#[test]
fn proxies_that_pass_requests_to_each_other() {
    in_own_network(async {
        let mut world = World::new();
        world.matrix.listen.clear();
        let [v4, v6] = MATRIX;
        let servers = format!(
            "server {{ listen {v4}:443 ssl http2; listen [{v6}]:443 ssl http2; location / {{ proxy_pass http://127.0.0.1:8008; }} }}\n\
             server {{ listen 127.0.0.1:8008; location / {{ proxy_pass http://127.0.0.1:8009; }} }}\n\
             server {{ listen 127.0.0.1:8009; location / {{ proxy_pass http://127.0.0.1:8008; }} }}"
        );
        let _nginx = Nginx::start(&world, &servers);
        let report = world.examine().await;
        report.finds(
            &["client-api-unreachable", "keys-status", "loop-header-grew", "loop-header-grew", "version", "version"],
            1,
        );
    });
}
