//! Measures password logins.

use super::{Context, ScenarioError, pick};
use crate::measure::closed_loop;
use crate::report::Measurement;

const AT_ONCE: usize = 4;

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let users = context.register_many(AT_ONCE).await?;
    let login = |number| context.server.login(&pick(&users, number).user_id);
    Ok(vec![closed_loop(&context.probes, "login", context.load(AT_ONCE), login).await])
}
