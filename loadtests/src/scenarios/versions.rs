//! Measures the smallest request there is, for the cost of HTTP alone.

use super::Context;
use crate::measure::closed_loop;
use crate::report::Measurement;

pub(crate) async fn run(context: &Context) -> Vec<Measurement> {
    let fetch = |_| context.server.fetch(None, "/_matrix/client/versions");
    vec![closed_loop(&context.probes, "versions", context.load(16), fetch).await]
}
