//! Synapse's own command for new users works on Gatehouse, through the edge.

use std::process::Command;

use gatehouse_test_support::client::Server;
use gatehouse_test_support::edge::{Deployment, Options, REGISTRATION_SECRET};
use gatehouse_test_support::keeper::installed;

#[tokio::test]
async fn register_new_matrix_user_makes_users_with_the_shared_secret_and_not_without() {
    let deployment = Deployment::start(&Options::default());
    let register = |name: &str, secret: &str| {
        let mut command = Command::new(installed("synapse/bin/register_new_matrix_user"));
        command.args(["--user", name, "--password", "a password", "--no-admin", "--shared-secret", secret]);
        command.arg(deployment.base_url()).env("REQUESTS_CA_BUNDLE", deployment.ca());
        command.output().expect("the program was found")
    };
    let output = register("carol", REGISTRATION_SECRET);
    assert!(output.status.success(), "{output:?}");
    let server = Server::new(&deployment.base_url(), &deployment.ca());
    let carol = server.log_in("carol", "a password").await.expect("carol can log in");
    assert_eq!(carol.id, format!("@carol:{}", deployment.server_name()));

    assert!(!register("mallory", "a wrong secret").status.success());
    assert!(server.log_in("mallory", "a password").await.is_err());
}
