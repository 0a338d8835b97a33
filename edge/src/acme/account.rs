//! The account at an authority: found in the state folder, or made there and kept.

use std::sync::Arc;

use gatehouse_shared::clock::Clock;
use instant_acme::{Account, Error, ExternalAccountKey, NewAccount};
use tracing::info;

use super::http_client::{AuthorityClient, RetryAfter};
use super::order::OrderError;
use super::store::Store;
use crate::config::{AcmeConfig, AuthorityConfig};

/// The account that `config` has at `authority`.
pub(super) async fn account(
    store: &Store,
    config: &AcmeConfig,
    authority: &AuthorityConfig,
    clock: &Arc<dyn Clock>,
    retry_after: &RetryAfter,
) -> Result<Account, OrderError> {
    let client = || -> Result<Box<AuthorityClient>, Error> {
        Ok(Box::new(AuthorityClient::new(authority, clock.clone(), retry_after.clone())?))
    };
    if let Some(credentials) = store.find_account(authority) {
        return Ok(Account::builder_with_http(client()?).from_credentials(credentials).await?);
    }
    let contact: Vec<&str> = config.contact.iter().map(String::as_str).collect();
    let new =
        NewAccount { contact: &contact, terms_of_service_agreed: config.agree_to_terms, only_return_existing: false };
    let bound_to = authority
        .external_account
        .as_ref()
        .and_then(|external| external.key_bytes().map(|key| ExternalAccountKey::new(external.kid.clone(), &key)));
    let made = Account::builder_with_http(client()?).create(&new, authority.directory.clone(), bound_to.as_ref());
    let (account, credentials) = made.await?;
    store.keep_account(authority, &credentials)?;
    info!(directory = authority.directory, account = account.id(), "made an account");
    Ok(account)
}
