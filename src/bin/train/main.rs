//! The training binary.
mod nn;
fn main() {}
