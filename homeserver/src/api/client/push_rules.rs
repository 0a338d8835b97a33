//! Push rules.

use axum::{Router, extract::State};
use ruma::{
    api::client::push::{
        PushRule, delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled, get_pushrules_all,
        get_pushrules_global_scope, set_pushrule, set_pushrule_actions, set_pushrule_enabled,
    },
    push::{AnyPushRuleRef, RuleKind},
};

use crate::{
    accounts::{Accounts, PushRuleError},
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    rules::push::RuleError,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<delete_pushrule::v3::Request, _, _>(delete)
        .endpoint::<get_pushrule::v3::Request, _, _>(get)
        .endpoint::<get_pushrule_actions::v3::Request, _, _>(get_actions)
        .endpoint::<get_pushrule_enabled::v3::Request, _, _>(get_enabled)
        .endpoint::<get_pushrules_all::v3::Request, _, _>(list)
        .endpoint::<get_pushrules_global_scope::v3::Request, _, _>(list_global)
        .endpoint::<set_pushrule::v3::Request, _, _>(set)
        .endpoint::<set_pushrule_actions::v3::Request, _, _>(set_actions)
        .endpoint::<set_pushrule_enabled::v3::Request, _, _>(set_enabled)
}

async fn list(
    State(accounts): State<Accounts>,
    requester: Requester,
    _: Ruma<get_pushrules_all::v3::Request>,
) -> Result<Ruma<get_pushrules_all::v3::Response>, ApiError> {
    Ok(Ruma(get_pushrules_all::v3::Response::new(accounts.push_rules(&requester).await?)))
}

async fn list_global(
    State(accounts): State<Accounts>,
    requester: Requester,
    _: Ruma<get_pushrules_global_scope::v3::Request>,
) -> Result<Ruma<get_pushrules_global_scope::v3::Response>, ApiError> {
    Ok(Ruma(get_pushrules_global_scope::v3::Response::new(accounts.push_rules(&requester).await?)))
}

/// One rule of the requester, as `read` wants it.
async fn one<T>(
    accounts: &Accounts,
    requester: &Requester,
    kind: RuleKind,
    rule_id: &str,
    read: impl FnOnce(AnyPushRuleRef<'_>) -> T,
) -> Result<T, ApiError> {
    let rules = accounts.push_rules(requester).await?;
    let rule = rules.get(kind, rule_id).ok_or(PushRuleError::Rule(RuleError::NotFound))?;
    Ok(read(rule))
}

async fn get(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_pushrule::v3::Request>,
) -> Result<Ruma<get_pushrule::v3::Response>, ApiError> {
    let rule =
        one(&accounts, &requester, request.kind, &request.rule_id, |rule| PushRule::from(rule.to_owned())).await?;
    Ok(Ruma(get_pushrule::v3::Response::new(rule)))
}

async fn get_actions(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_pushrule_actions::v3::Request>,
) -> Result<Ruma<get_pushrule_actions::v3::Response>, ApiError> {
    let actions = one(&accounts, &requester, request.kind, &request.rule_id, |rule| rule.actions().to_owned()).await?;
    Ok(Ruma(get_pushrule_actions::v3::Response::new(actions)))
}

async fn get_enabled(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_pushrule_enabled::v3::Request>,
) -> Result<Ruma<get_pushrule_enabled::v3::Response>, ApiError> {
    let enabled = one(&accounts, &requester, request.kind, &request.rule_id, |rule| rule.enabled()).await?;
    Ok(Ruma(get_pushrule_enabled::v3::Response::new(enabled)))
}

async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<set_pushrule::v3::Request>,
) -> Result<Ruma<set_pushrule::v3::Response>, ApiError> {
    let set_pushrule::v3::Request { rule, before, after, .. } = request;
    accounts.set_push_rule(&requester, rule, before.as_deref(), after.as_deref()).await?;
    Ok(Ruma(set_pushrule::v3::Response::new()))
}

async fn delete(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<delete_pushrule::v3::Request>,
) -> Result<Ruma<delete_pushrule::v3::Response>, ApiError> {
    accounts.delete_push_rule(&requester, &request.kind, &request.rule_id).await?;
    Ok(Ruma(delete_pushrule::v3::Response::new()))
}

async fn set_actions(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<set_pushrule_actions::v3::Request>,
) -> Result<Ruma<set_pushrule_actions::v3::Response>, ApiError> {
    accounts.set_push_rule_actions(&requester, &request.kind, &request.rule_id, &request.actions).await?;
    Ok(Ruma(set_pushrule_actions::v3::Response::new()))
}

async fn set_enabled(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<set_pushrule_enabled::v3::Request>,
) -> Result<Ruma<set_pushrule_enabled::v3::Response>, ApiError> {
    accounts.set_push_rule_enabled(&requester, &request.kind, &request.rule_id, request.enabled).await?;
    Ok(Ruma(set_pushrule_enabled::v3::Response::new()))
}
