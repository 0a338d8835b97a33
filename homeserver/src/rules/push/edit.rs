//! Decides which changes of push rules are allowed, and where a rule lands among the others.
//!
//! Specification: client-server API, "Push Rules: API".

use ruma::{
    UserId,
    push::{
        Action, ConditionalPushRule, NewPushRule, PatternedPushRule, PushCondition, RemovePushRuleError, RuleKind,
        Ruleset, SimplePushRule,
    },
};

use super::effective_rules;

/// The longest pattern of a rule, in bytes. Bounds what a message costs.
pub const MAX_PATTERN_BYTES: usize = 256;

/// The most rules that a user may add. Each event of each of their rooms may meet them all.
pub const MAX_USER_RULES: usize = 500;

/// Why push rules cannot be changed like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No rule of that kind and id: 404 `M_NOT_FOUND`.
    #[error("there is no such push rule")]
    NotFound,
    /// The id begins with a dot, which is the server's: 400 `M_INVALID_PARAM`.
    #[error("rule ids that begin with a dot are reserved to the server")]
    Reserved,
    /// The id contains a slash or a backslash: 400 `M_INVALID_PARAM`.
    #[error("a rule id may not contain a slash or a backslash")]
    InvalidId,
    /// `before` or `after` names a rule of the server: 400 `M_INVALID_PARAM`.
    #[error("rules cannot be placed relative to a rule of the server")]
    RelativeToDefault,
    /// `before` or `after` names no rule: 400 `M_UNKNOWN`.
    #[error("the rule to place it next to does not exist")]
    UnknownNeighbour,
    /// `before` names a rule above the one that `after` names: 400 `M_UNKNOWN`.
    #[error("no place is both before and after those rules")]
    Contradiction,
    /// A pattern is longer than [`MAX_PATTERN_BYTES`]: 400 `M_INVALID_PARAM`.
    #[error("a pattern may have at most {MAX_PATTERN_BYTES} bytes")]
    PatternTooLong,
    /// The user has [`MAX_USER_RULES`] already: 400 `M_INVALID_PARAM`.
    #[error("a user may add at most {MAX_USER_RULES} rules")]
    TooMany,
    /// The rule is the server's and can be disabled, not deleted: 400 `M_INVALID_PARAM`.
    #[error("rules of the server cannot be deleted")]
    Undeletable,
}

/// Adds a rule, or replaces the user's rule of that kind and id, which then stays enabled or disabled.
///
/// Without `before` and `after` a new rule becomes the first of the user's of its kind, and a replaced one stays where
/// it is. Returns the rules to store.
///
/// # Errors
///
/// See [`RuleError`]; nothing changes then.
pub fn insert(
    stored: Option<Ruleset>,
    user_id: &UserId,
    rule: NewPushRule,
    before: Option<&str>,
    after: Option<&str>,
) -> Result<Ruleset, RuleError> {
    let mut rules = effective_rules(stored, user_id);
    check_id(rule.rule_id())?;
    check_patterns(&rule)?;
    if before.into_iter().chain(after).any(|id| id.starts_with('.')) {
        return Err(RuleError::RelativeToDefault);
    }
    let is_new = rules.get(rule.kind(), rule.rule_id()).is_none();
    if is_new && rules.iter().filter(|rule| !rule.is_server_default()).count() >= MAX_USER_RULES {
        return Err(RuleError::TooMany);
    }
    let place = Place { before, after };
    match rule {
        NewPushRule::Override(rule) => {
            rules.override_ = place
                .put(rules.override_.into_iter().collect(), ConditionalPushRule::from(rule))?
                .into_iter()
                .collect();
        }
        NewPushRule::Underride(rule) => {
            rules.underride = place
                .put(rules.underride.into_iter().collect(), ConditionalPushRule::from(rule))?
                .into_iter()
                .collect();
        }
        NewPushRule::Content(rule) => {
            rules.content =
                place.put(rules.content.into_iter().collect(), PatternedPushRule::from(rule))?.into_iter().collect();
        }
        NewPushRule::Room(rule) => {
            rules.room = place.put(rules.room.into_iter().collect(), SimplePushRule::from(rule))?.into_iter().collect();
        }
        NewPushRule::Sender(rule) => {
            rules.sender =
                place.put(rules.sender.into_iter().collect(), SimplePushRule::from(rule))?.into_iter().collect();
        }
        // A kind that this server does not know.
        _ => return Err(RuleError::NotFound),
    }
    Ok(rules)
}

/// Deletes a rule of the user's. Returns the rules to store.
///
/// # Errors
///
/// When there is none, or it is the server's.
pub fn remove(stored: Option<Ruleset>, user_id: &UserId, kind: RuleKind, rule_id: &str) -> Result<Ruleset, RuleError> {
    let mut rules = effective_rules(stored, user_id);
    match rules.remove(kind, rule_id) {
        Ok(()) => Ok(rules),
        Err(RemovePushRuleError::ServerDefault) => Err(RuleError::Undeletable),
        Err(_) => Err(RuleError::NotFound),
    }
}

/// Enables or disables a rule, the user's or the server's. Returns the rules to store.
///
/// # Errors
///
/// When there is no such rule.
pub fn set_enabled(
    stored: Option<Ruleset>,
    user_id: &UserId,
    kind: RuleKind,
    rule_id: &str,
    enabled: bool,
) -> Result<Ruleset, RuleError> {
    let mut rules = effective_rules(stored, user_id);
    rules.set_enabled(kind, rule_id, enabled).map_err(|_| RuleError::NotFound)?;
    Ok(rules)
}

/// Changes what a rule does, the user's or the server's. Returns the rules to store.
///
/// # Errors
///
/// When there is no such rule.
pub fn set_actions(
    stored: Option<Ruleset>,
    user_id: &UserId,
    kind: RuleKind,
    rule_id: &str,
    actions: Vec<Action>,
) -> Result<Ruleset, RuleError> {
    let mut rules = effective_rules(stored, user_id);
    rules.set_actions(kind, rule_id, actions).map_err(|_| RuleError::NotFound)?;
    Ok(rules)
}

fn check_id(rule_id: &str) -> Result<(), RuleError> {
    if rule_id.starts_with('.') {
        return Err(RuleError::Reserved);
    }
    if rule_id.is_empty() || rule_id.contains(['/', '\\']) {
        return Err(RuleError::InvalidId);
    }
    Ok(())
}

fn check_patterns(rule: &NewPushRule) -> Result<(), RuleError> {
    let too_long = |text: &str| text.len() > MAX_PATTERN_BYTES;
    let condition_too_long = |condition: &PushCondition| match condition {
        PushCondition::EventMatch(data) => too_long(&data.pattern),
        _ => false,
    };
    let refused = match rule {
        NewPushRule::Content(rule) => too_long(&rule.pattern),
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) => rule.conditions.iter().any(condition_too_long),
        _ => false,
    };
    if refused { Err(RuleError::PatternTooLong) } else { Ok(()) }
}

/// What the kinds of rules have in common.
trait Rule {
    fn id(&self) -> &str;
    fn enabled_mut(&mut self) -> &mut bool;
}

impl Rule for ConditionalPushRule {
    fn id(&self) -> &str {
        &self.rule_id
    }

    fn enabled_mut(&mut self) -> &mut bool {
        &mut self.enabled
    }
}

impl Rule for PatternedPushRule {
    fn id(&self) -> &str {
        &self.rule_id
    }

    fn enabled_mut(&mut self) -> &mut bool {
        &mut self.enabled
    }
}

impl<T: AsRef<str>> Rule for SimplePushRule<T> {
    fn id(&self) -> &str {
        self.rule_id.as_ref()
    }

    fn enabled_mut(&mut self) -> &mut bool {
        &mut self.enabled
    }
}

/// Where a rule should land.
#[derive(Clone, Copy)]
struct Place<'a> {
    before: Option<&'a str>,
    after: Option<&'a str>,
}

impl Place<'_> {
    fn put<R: Rule>(self, mut rules: Vec<R>, mut rule: R) -> Result<Vec<R>, RuleError> {
        let old = rules.iter().position(|other| other.id() == rule.id());
        if let Some(index) = old {
            *rule.enabled_mut() = *rules.remove(index).enabled_mut();
        }
        let position = |id: &str| rules.iter().position(|other| other.id() == id).ok_or(RuleError::UnknownNeighbour);
        let before = self.before.map(position).transpose()?;
        let after = self.after.map(position).transpose()?;
        let index = match (before, after) {
            (Some(before), Some(after)) if before <= after => return Err(RuleError::Contradiction),
            (Some(before), _) => before,
            (None, Some(after)) => after + 1,
            // The rule that turns everything off stays above all others.
            (None, None) => {
                old.unwrap_or_else(|| rules.iter().take_while(|rule| rule.id() == ".m.rule.master").count())
            }
        };
        rules.insert(index, rule);
        Ok(rules)
    }
}
