//! What a client hears from rooms.
