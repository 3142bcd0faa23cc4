//! The frames by which models are judged: `[judge]`.

use serde::{Deserialize, Serialize};

/// The frames by which models are judged: `[judge]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Judge {}
