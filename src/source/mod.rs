//! Where frames come from.

pub mod decode;
mod jpeg;
mod tags;
