//! A user's push rules, kept as the account data `m.push_rules` so that every client learns of a change.

use ruma::push::{Action, NewPushRule, RuleKind, Ruleset};
use serde::Deserialize;

use super::{Accounts, Requester};
use crate::{
    rules::push::{self, RuleError},
    storage::{
        DbError,
        account_data::{self, GLOBAL},
    },
    stream::CommitError,
};

/// The type of account data that holds the rules.
pub(super) const DATA_TYPE: &str = "m.push_rules";

/// Why push rules were not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum PushRuleError {
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Accounts {
    /// The rules of a user: the server's defaults with what the user changed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn push_rules(&self, requester: &Requester) -> Result<Ruleset, DbError> {
        let stored = account_data::find(&self.inner.db, requester.user_nid, GLOBAL, DATA_TYPE).await?;
        Ok(push::effective_rules(stored.as_deref().map(parse).transpose()?, &requester.user_id))
    }

    /// Adds a rule, or replaces one, at a place.
    ///
    /// # Errors
    /// [`PushRuleError::Rule`] for a rule or place that cannot be, and those of the database.
    pub async fn set_push_rule(
        &self,
        requester: &Requester,
        rule: NewPushRule,
        before: Option<&str>,
        after: Option<&str>,
    ) -> Result<(), PushRuleError> {
        self.edit_push_rules(requester, |stored| push::insert(stored, &requester.user_id, rule.clone(), before, after))
            .await
    }

    /// Deletes a rule of the user's own.
    ///
    /// # Errors
    /// [`PushRuleError::Rule`] for a rule that is not there or is the server's, and those of the database.
    pub async fn delete_push_rule(
        &self,
        requester: &Requester,
        kind: &RuleKind,
        rule_id: &str,
    ) -> Result<(), PushRuleError> {
        self.edit_push_rules(requester, |stored| push::remove(stored, &requester.user_id, kind.clone(), rule_id)).await
    }

    /// Switches a rule on or off.
    ///
    /// # Errors
    /// [`PushRuleError::Rule`] for a rule that is not there, and those of the database.
    pub async fn set_push_rule_enabled(
        &self,
        requester: &Requester,
        kind: &RuleKind,
        rule_id: &str,
        enabled: bool,
    ) -> Result<(), PushRuleError> {
        let user_id = &requester.user_id;
        self.edit_push_rules(requester, |stored| push::set_enabled(stored, user_id, kind.clone(), rule_id, enabled))
            .await
    }

    /// Sets what a rule does.
    ///
    /// # Errors
    /// [`PushRuleError::Rule`] for a rule that is not there, and those of the database.
    pub async fn set_push_rule_actions(
        &self,
        requester: &Requester,
        kind: &RuleKind,
        rule_id: &str,
        actions: &[Action],
    ) -> Result<(), PushRuleError> {
        let user_id = &requester.user_id;
        self.edit_push_rules(requester, |stored| {
            push::set_actions(stored, user_id, kind.clone(), rule_id, actions.to_vec())
        })
        .await
    }

    async fn edit_push_rules(
        &self,
        requester: &Requester,
        edit: impl Fn(Option<Ruleset>) -> Result<Ruleset, RuleError>,
    ) -> Result<(), PushRuleError> {
        self.edit_account_data(requester.user_nid, GLOBAL, DATA_TYPE, |stored| {
            let rules = edit(stored.map(parse).transpose()?)?;
            Ok::<_, PushRuleError>(to_content(&rules))
        })
        .await
    }
}

#[derive(Deserialize)]
struct Content {
    global: Ruleset,
}

fn parse(content: &str) -> Result<Ruleset, DbError> {
    serde_json::from_str(content)
        .map(|content: Content| content.global)
        .map_err(|error| DbError::Corrupt(format!("account_data, {DATA_TYPE}: {error}")))
}

/// The content of the account data.
pub(super) fn to_content(rules: &Ruleset) -> String {
    serde_json::json!({ "global": rules }).to_string()
}
