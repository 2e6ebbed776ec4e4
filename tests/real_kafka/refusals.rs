//! What brokers refuse, and what the producer tells of it.
