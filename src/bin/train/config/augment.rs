//! How tiles are changed and made up: `[augment]`.

use serde::{Deserialize, Serialize};

/// How tiles are changed and made up: `[augment]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Augment {}
