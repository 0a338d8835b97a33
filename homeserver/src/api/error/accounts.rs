//! What a client hears from accounts.
