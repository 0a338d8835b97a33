//! Real clients talk through the edge's TLS, while the server is restarted in between.

use std::fs;
use std::path::Path;
use std::process::Command;

use gatehouse_test_support::edge::{Database, Deployment, Options};
use gatehouse_test_support::keeper::{folder, installed};
use gatehouse_test_support::{postgres, script};

#[test]
fn two_users_of_matrix_nio_read_each_others_encrypted_messages_across_a_restart() {
    let mut deployment = Deployment::start(&Options::default());
    let store = folder("gatehouse-nio-");
    let mut command = Command::new(installed("nio/bin/python"));
    command.arg(here().join("nio_encrypted.py")).arg(deployment.base_url()).arg(deployment.ca()).arg(store.path());
    let last = script::run(&mut command, |request| obey(&mut deployment, request));
    assert!(last.ends_with("were read by both"), "{last}");
}

#[test]
fn two_users_of_matrix_js_sdk_talk_type_read_count_and_page_back_across_a_restart() {
    let database = Database::Postgres(postgres::shared().create_database());
    let mut deployment = Deployment::start(&Options { shards: 2, database, ..Options::default() });
    // Node.js finds packages beside the script only.
    let packages = installed("js");
    let talk = packages.join("talk.mjs");
    fs::copy(here().join("js/talk.mjs"), &talk).expect("the cache is writable");
    let mut command = Command::new(packages.join("node_modules/.bin/node"));
    command.arg(talk).arg(deployment.base_url()).env("NODE_EXTRA_CA_CERTS", deployment.ca());
    let last = script::run(&mut command, |request| obey(&mut deployment, request));
    assert!(last.ends_with("were read by both"), "{last}");
}

fn obey(deployment: &mut Deployment, request: &str) {
    assert_eq!(request, "restart", "the script asks for something unknown");
    deployment.restart();
}

fn here() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop"))
}
