-- What reading rooms needs beside the order of events.

-- What stood at a key before: the history of a room's visibility, of a user's membership, of any state event.
CREATE INDEX events_by_state_key ON events (room_nid, event_type, state_key, position) WHERE state_key IS NOT NULL;
