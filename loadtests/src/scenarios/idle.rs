//! Measures what the processes hold and use while nobody asks for anything. One operation is one second.

use std::time::Duration;

use super::Context;
use crate::measure::{Stopwatch, now};
use crate::report::Measurement;

const SECONDS: u64 = 10;

pub(crate) async fn run(context: &Context) -> Vec<Measurement> {
    let watch = Stopwatch::start(&context.probes);
    for _ in 0..SECONDS {
        let began = now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        watch.record(began, Ok(()));
    }
    vec![watch.finish("idle")]
}
