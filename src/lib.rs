//! Finds ships in overhead images on the board that took them.
//!
//! A [`frame::Frame`] goes into a [`detect::Detector`], which cuts it into tiles, lets a small
//! classifier (the gate) choose the tiles worth a closer look, segments those, and returns a
//! [`record::FrameRecord`] with every ship as a run-length mask in the form of the Airbus Ship
//! Detection challenge.
//!
//! `ARCHITECTURE.md` maps the folders and states what holds between them.

pub mod board;
pub mod clock;
pub mod contain;
pub mod daemon;
pub mod dataset;
pub mod detect;
pub mod engine;
pub mod frame;
pub mod inference;
pub mod ledger;
pub mod lock;
pub mod mask;
pub mod metrics;
pub mod model;
pub mod process;
pub mod record;
pub mod sink;
pub mod source;
pub mod tile;
