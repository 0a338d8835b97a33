//! A network of a test's own, in which the well-known ports and every address are free.

use std::process::Command;

/// Addresses that lead to this machine in the network of a test.
pub(crate) const WEB: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub(crate) const MATRIX: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// Says to the inner process that it is inside.
const INSIDE: &str = "GATEHOUSE_TEST_OWN_NETWORK";

/// Runs the calling test's `body` in a network namespace of its own: this program is started there again, for the same
/// test alone. Without root it needs user namespaces.
pub(crate) fn in_own_network<F: Future<Output = ()>>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(body);
        return;
    }
    let test = std::any::type_name::<F>();
    let test = test.split_once("::").and_then(|(_, path)| path.split("::{{").next()).unwrap();
    let addresses = WEB.iter().chain(&MATRIX);
    let add = addresses.map(|address| format!("ip address add {address} dev lo && ")).collect::<String>();
    // `ip` and `named` are where root finds them.
    let script = format!("PATH=\"$PATH:/usr/sbin:/sbin\"; ip link set lo up && {add} exec \"$0\" \"$@\"");
    let is_root = std::process::Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let run = Command::new("unshare")
        .args(if is_root { &["--net"][..] } else { &["--net", "--map-root-user"] })
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "yes")
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && told.contains("1 passed"), "{test} in a network of its own:\n{told}");
}
