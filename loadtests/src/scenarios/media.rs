//! Measures media of one mebibyte, up and down again.

use std::cell::RefCell;

use bytes::Bytes;

use super::{Context, ScenarioError, pick};
use crate::measure::{Load, closed_loop};
use crate::report::Measurement;

const AT_ONCE: usize = 4;
const SIZE: usize = 1 << 20;
const OPERATIONS: u64 = 400;

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let users = context.register_many(AT_ONCE).await?;
    let load = Load { at_once: AT_ONCE, operations: OPERATIONS, limit: context.limit };
    let uploaded = RefCell::new(Vec::new());
    let upload = |number: u64| {
        // No two uploads are alike, so that none is stored only once.
        let mut content = vec![b'x'; SIZE];
        content[..8].copy_from_slice(&number.to_be_bytes());
        let (user, uploaded) = (pick(&users, number), &uploaded);
        async move {
            let media = context.server.upload(user, Bytes::from(content)).await?;
            uploaded.borrow_mut().push(media);
            Ok(())
        }
    };
    let up = closed_loop(&context.probes, "media-up", load, upload).await;
    let uploaded = uploaded.take();
    if uploaded.is_empty() {
        return Ok(vec![up]);
    }
    let download = |number| {
        let path = format!("/_matrix/client/v1/media/download/{}", pick(&uploaded, number));
        let user = pick(&users, number);
        async move { context.server.fetch(Some(user), &path).await }
    };
    let down = closed_loop(&context.probes, "media-down", load, download).await;
    Ok(vec![up, down])
}
