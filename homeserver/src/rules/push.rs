//! Decides whether an event notifies a user, and how users change the rules that say so.
//!
//! Specification: client-server API, "Push notifications". The rules are ruma's types. They are evaluated here, since
//! ruma compiles a regular expression for each user and recurses once per word of a message.

use std::cell::OnceCell;

use ruma::{
    UserId,
    push::{Action, AnyPushRuleRef, Ruleset},
};
use serde_json::{Map, Value};

use super::pdu::Pdu;

mod conditions;
mod edit;
mod glob;
#[cfg(test)]
mod tests;

pub use self::edit::{MAX_PATTERN_BYTES, MAX_USER_RULES, RuleError, insert, remove, set_actions, set_enabled};

/// The rules of a user: the server's defaults for them, with what they changed.
///
/// `stored` is what an earlier [`insert`], [`remove`], [`set_enabled`] or [`set_actions`] gave; a user who changed
/// nothing has none.
pub fn effective_rules(stored: Option<Ruleset>, user_id: &UserId) -> Ruleset {
    let defaults = Ruleset::server_default(user_id);
    match stored {
        Some(mut rules) => {
            rules.update_with_server_default(defaults);
            rules
        }
        None => defaults,
    }
}

/// What matching rules say of an event for one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// It counts as a notification and goes to pushers.
    pub notify: bool,
    /// It counts as a highlight.
    pub highlight: bool,
}

impl Verdict {
    fn of(actions: &[Action]) -> Self {
        let notify = actions.iter().any(Action::should_notify);
        Self { notify, highlight: notify && actions.iter().any(Action::is_highlight) }
    }
}

/// What conditions ask about the room, as it is just after the event.
#[derive(Clone, Copy, Debug)]
pub struct RoomContext {
    /// How many users are joined.
    pub member_count: u64,
    /// Whether the event's sender has the level of `notifications.room`
    /// ([`super::power::RoomPower::can_notify_room`]).
    pub sender_can_notify_room: bool,
}

/// Whom an event is evaluated for.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The user.
    pub user_id: &'a UserId,
    /// Their display name in the room.
    pub display_name: Option<&'a str>,
}

/// An event parsed once, to be evaluated for each member of its room.
#[derive(Debug)]
pub struct PreparedEvent<'a> {
    pdu: &'a Pdu,
    content: Map<String, Value>,
    room: RoomContext,
    /// What patterns of words are matched against.
    lower_case_body: OnceCell<Option<String>>,
    /// The verdict for all users who are not named by the event and have the default rules.
    for_bystanders: OnceCell<Verdict>,
}

impl<'a> PreparedEvent<'a> {
    /// Parses the event's content.
    pub fn new(pdu: &'a Pdu, room: RoomContext) -> Self {
        Self {
            pdu,
            content: pdu.content_as().unwrap_or_default(),
            room,
            lower_case_body: OnceCell::new(),
            for_bystanders: OnceCell::new(),
        }
    }

    /// The first rule that matches, in order of priority. Nobody is notified of their own events.
    pub fn matching_rule<'r>(&self, rules: &'r Ruleset, reader: Reader<'_>) -> Option<AnyPushRuleRef<'r>> {
        if self.pdu.sender() == reader.user_id {
            return None;
        }
        rules.iter().find(|rule| rule.enabled() && self.matches(*rule, reader))
    }

    /// What the rules of a user say.
    pub fn verdict(&self, rules: &Ruleset, reader: Reader<'_>) -> Verdict {
        self.matching_rule(rules, reader).map(|rule| Verdict::of(rule.actions())).unwrap_or_default()
    }

    /// What the default rules say for a user who changed none of them. The rules run once for all such users whom the
    /// event does not name.
    pub fn verdict_by_defaults(&self, user_id: &UserId) -> Verdict {
        if self.pdu.sender() == user_id {
            return Verdict::default();
        }
        let reader = Reader { user_id, display_name: None };
        if self.names(user_id) {
            return self.verdict(&Ruleset::server_default(user_id), reader);
        }
        *self.for_bystanders.get_or_init(|| self.verdict(&Ruleset::server_default(user_id), reader))
    }

    /// Whether the event names the user, which is all that default rules look at beyond the event and the room.
    fn names(&self, user_id: &UserId) -> bool {
        let mentioned = self.content.get("m.mentions").and_then(|mentions| mentions.get("user_ids"));
        self.pdu.state_key() == Some(user_id.as_str())
            || mentioned.and_then(Value::as_array).is_some_and(|ids| ids.iter().any(|id| id == user_id.as_str()))
    }
}
