//! Makes the folder for development: configurations, the cluster secret, and places for keys and data.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gatehouse_shared::hex::Hex;

/// A file or folder of the workbench cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {}: {source}", path.display())]
pub struct DevError {
    path: PathBuf,
    source: io::Error,
}

/// The ports on 127.0.0.1 of a development server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) https: u16,
    pub(crate) federation: u16,
    pub(crate) http: u16,
}

/// What was made, or was there already.
#[derive(Debug)]
pub(crate) struct Workbench {
    pub(crate) edge_config: PathBuf,
    pub(crate) homeserver_config: PathBuf,
    pub(crate) homeserver_program: PathBuf,
}

/// Makes what is missing in `folder`; what is there stays as it is, so that it can be edited.
pub(crate) fn prepare(folder: &Path, ports: Ports) -> Result<Workbench, DevError> {
    let cannot_make = |path: &Path| {
        let path = path.to_owned();
        move |source| DevError { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot_make(folder))?;
    let folder = fs::canonicalize(folder).map_err(cannot_make(folder))?;
    let edge_config = folder.join("edge.toml");
    let homeserver_config = folder.join("homeserver.toml");
    let secret = folder.join("cluster-secret");
    let server_name = format!("localhost:{}", ports.federation);
    let base_url = format!("https://localhost:{}", ports.https);
    let homeserver_program =
        std::env::current_exe().map_err(cannot_make(&folder))?.with_file_name("gatehouse-homeserver");
    for (path, text) in [
        (&secret, new_secret()),
        (&edge_config, edge_toml(&folder, &server_name, &base_url, ports)),
        (&homeserver_config, homeserver_toml(&folder, &server_name)),
    ] {
        write_unless_there(path, &text).map_err(cannot_make(path))?;
    }
    Ok(Workbench { edge_config, homeserver_config, homeserver_program })
}

fn write_unless_there(path: &Path, text: &str) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn new_secret() -> String {
    let bytes: [u8; 32] = rand::random();
    format!("{}\n", Hex::<64>::of(&bytes))
}

/// A path as a TOML string.
fn quoted(path: &Path) -> String {
    toml_string(&path.display().to_string())
}

/// JSON's escapes are a subset of TOML's.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn edge_toml(folder: &Path, server_name: &str, base_url: &str, ports: Ports) -> String {
    let Ports { https, federation, http } = ports;
    let secret = quoted(&folder.join("cluster-secret"));
    let ca = quoted(&folder.join("ca"));
    let sockets = quoted(&folder.join("sockets"));
    let homeserver = quoted(&folder.join("homeserver.toml"));
    let control = quoted(&folder.join("control.sock"));
    format!(
        "# Made by `gatehouse dev`; edit it as you like. conf/edge.toml explains every key.\n\
         [server]\nname = {}\nbase_url = {}\nfederation_address = {}\n\n\
         [listen]\nhttps = [\"127.0.0.1:{https}\"]\nfederation = [\"127.0.0.1:{federation}\"]\nhttp = [\"127.0.0.1:{http}\"]\n\n\
         [tls.development_ca]\nfolder = {ca}\n\n\
         [upstream]\ncluster_secret = {{ file = {secret} }}\n\n\
         [supervise]\nshards = 1\nconfig = {homeserver}\nsocket_folder = {sockets}\n\n\
         [control]\nsocket = {control}\n",
        toml_string(server_name),
        toml_string(base_url),
        toml_string(server_name),
    )
}

/// Trusts the development authority and calls servers on this machine, so that two of them can speak with each other.
fn homeserver_toml(folder: &Path, server_name: &str) -> String {
    let data = quoted(&folder.join("data"));
    let secret = quoted(&folder.join("cluster-secret"));
    let ca = quoted(&folder.join("ca/ca.pem"));
    format!(
        "# Made by `gatehouse dev`; edit it as you like. conf/homeserver.toml explains every key.\n\
         server_name = {}\ndata_folder = {data}\ncluster_secret = {{ file = {secret} }}\n\n\
         [federation]\nca_file = {ca}\nallowed_ranges = [\"127.0.0.0/8\", \"::1/128\"]\n",
        toml_string(server_name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_workbench_is_made_once_and_its_edge_configuration_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports { https: 8443, federation: 8448, http: 8080 };
        let workbench = prepare(&folder.path().join("run"), ports).unwrap();
        let config = config::load(&workbench.edge_config).unwrap();
        assert_eq!(config.server.name, "localhost:8448");
        let secret = fs::read_to_string(folder.path().join("run/cluster-secret")).unwrap();
        assert_eq!(secret.trim().len(), 64);
        prepare(&folder.path().join("run"), ports).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("run/cluster-secret")).unwrap(), secret);
    }
}
