//! The chain from a frame to a record.
