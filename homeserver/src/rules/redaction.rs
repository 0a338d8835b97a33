//! Decides what a redaction takes away, and whether it may.

use ruma::canonical_json::{CanonicalJsonFieldError, redact as redact_object};

use super::{pdu::Pdu, power::RoomPower, room_version::RoomVersion};

#[cfg(test)]
mod tests;

/// The event with everything removed that a redaction removes in its room version. Its id stays the same.
///
/// Redacting twice changes nothing.
///
/// # Errors
///
/// Never for a `Pdu` that passed its format checks; the error is ruma's for objects that are no events.
pub fn redact(pdu: &Pdu) -> Result<Pdu, CanonicalJsonFieldError> {
    let redacted = redact_object(pdu.to_object(), &pdu.room_version().rules().redaction, None)?;
    let json = super::canonical::to_text(&redacted);
    let redacted = Pdu::from_stored(pdu.event_id().to_owned(), pdu.room_version(), json)
        .expect("redaction keeps every field of the event format");
    Ok(redacted.with_rejected(pdu.rejected()))
}

/// Whether an accepted `m.room.redaction` may take away the content of the event it names.
///
/// In room versions 1 and 2 the authorization rules decided that already. From version 3 on, a redaction is accepted
/// before its target is known, and applies when its sender has the `redact` level or is of the target's server.
/// `power` is that of the room's state before the redaction. Specification: rooms/v3, "Handling redactions".
pub fn may_apply_redaction(redaction: &Pdu, target: &Pdu, power: &RoomPower) -> bool {
    if redaction.room_id() != target.room_id() || redaction.redacts() != Some(target.event_id()) || redaction.rejected()
    {
        return false;
    }
    if redaction.room_version() <= RoomVersion::V2 {
        return true;
    }
    redaction.sender().server_name() == target.sender().server_name()
        || power.user_level(redaction.sender()) >= power.levels().redact
}
