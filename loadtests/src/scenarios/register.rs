//! Measures registrations, each with the request for its nonce or its session.

use super::Context;
use crate::measure::closed_loop;
use crate::report::Measurement;

pub(crate) async fn run(context: &Context) -> Vec<Measurement> {
    vec![closed_loop(&context.probes, "register", context.load(4), |_| context.server.register()).await]
}
