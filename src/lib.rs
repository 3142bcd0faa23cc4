//! Temporary.
pub mod frame;
pub mod model;
