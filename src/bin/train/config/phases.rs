//! The stretches of training: `[phases]`. Four are those of the original system, two more follow in
//! which the networks learn to live with bytes.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use serde::{Deserialize, Deserializer, Serialize};

use super::{SHARE, STEPS, within};

/// Tiles of a step: what memory holds of a network at work grows with them.
const BATCH: RangeInclusive<usize> = 1..=1024;

/// Peaks of the learning rate.
const RATES: RangeInclusive<f64> = 1e-9..=1.0;

/// Blocks of MobileNetV2.
const BLOCKS: usize = 17;

/// A stretch of training. The order is that of a run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PhaseName {
    /// The gate's head on a frozen encoder.
    GateHead,
    /// The gate's head and the encoder's later blocks.
    GateBlocks,
    /// The U-Net's decoder on the gate's encoder, frozen.
    Decoder,
    /// The whole U-Net.
    Unet,
    /// The gate, its weights and maps rounded to bytes.
    #[value(skip)]
    GateInt8,
    /// The U-Net, its weights and maps rounded to bytes.
    #[value(skip)]
    UnetInt8,
}

impl PhaseName {
    /// Those of `train run`.
    pub(crate) const FLOAT: [Self; 4] =
        [Self::GateHead, Self::GateBlocks, Self::Decoder, Self::Unet];

    /// Those and the ones of `train quantize`.
    pub(crate) const ALL: [Self; 6] = [
        Self::GateHead,
        Self::GateBlocks,
        Self::Decoder,
        Self::Unet,
        Self::GateInt8,
        Self::UnetInt8,
    ];

    /// As in the config, on the command line and in the run folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GateHead => "gate-head",
            Self::GateBlocks => "gate-blocks",
            Self::Decoder => "decoder",
            Self::Unet => "unet",
            Self::GateInt8 => "gate-int8",
            Self::UnetInt8 => "unet-int8",
        }
    }

    /// The command that trains it.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::GateInt8 | Self::UnetInt8 => "train quantize",
            _ => "train run",
        }
    }

    /// The phase before it that trains the same network.
    pub(crate) fn before(self) -> Option<Self> {
        match self {
            Self::GateHead | Self::Decoder => None,
            Self::GateBlocks => Some(Self::GateHead),
            Self::Unet => Some(Self::Decoder),
            Self::GateInt8 => Some(Self::GateBlocks),
            Self::UnetInt8 => Some(Self::Unet),
        }
    }

    /// Whether it trains the gate; else the U-Net.
    pub(crate) fn is_gate(self) -> bool {
        matches!(self, Self::GateHead | Self::GateBlocks | Self::GateInt8)
    }
}

/// Settings of one phase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Phase {
    /// Steps, up to 100 million; 0 leaves the phase out.
    pub(crate) steps: usize,
    /// Tiles in a step, 1 to 1024.
    pub(crate) batch: usize,
    /// Peak learning rate of AdamW, 1e-9 to 1.
    pub(crate) learning_rate: f64,
    /// Share of tiles that hold a ship, 0 to 1.
    pub(crate) ship_share: f64,
    /// Steps between two looks at the tune set.
    pub(crate) tune_every: usize,
    /// Looks at the tune set without gain after which the phase ends early; 0 for never.
    pub(crate) patience: usize,
    /// First block of the encoder that is trained; the stem too if that is 0. None where the whole
    /// encoder is frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_block: Option<usize>,
}

/// The settings of each phase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Phases {
    #[serde(deserialize_with = "gate_head")]
    pub(crate) gate_head: Phase,
    #[serde(deserialize_with = "gate_blocks")]
    pub(crate) gate_blocks: Phase,
    #[serde(deserialize_with = "decoder")]
    pub(crate) decoder: Phase,
    #[serde(deserialize_with = "unet")]
    pub(crate) unet: Phase,
    #[serde(deserialize_with = "gate_int8")]
    pub(crate) gate_int8: Phase,
    #[serde(deserialize_with = "unet_int8")]
    pub(crate) unet_int8: Phase,
}

impl Default for Phases {
    fn default() -> Self {
        let gate = Phase {
            steps: 0,
            batch: 32,
            learning_rate: 1e-3,
            ship_share: 0.5,
            tune_every: 200,
            patience: 0,
            first_block: None,
        };
        let unet = Phase {
            batch: 24,
            ship_share: 0.7,
            ..gate
        };
        Self {
            gate_head: gate,
            gate_blocks: Phase {
                learning_rate: 5e-4,
                first_block: Some(6),
                ..gate
            },
            decoder: unet,
            unet: Phase {
                learning_rate: 8e-4,
                first_block: Some(0),
                ..unet
            },
            gate_int8: Phase {
                learning_rate: 1e-5,
                tune_every: 50,
                patience: 3,
                ..gate
            },
            unet_int8: Phase {
                learning_rate: 1e-5,
                tune_every: 50,
                patience: 3,
                ..unet
            },
        }
    }
}

/// A phase as written: what is left out takes the phase's own default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    steps: usize,
    batch: Option<usize>,
    learning_rate: Option<f64>,
    ship_share: Option<f64>,
    tune_every: Option<usize>,
    patience: Option<usize>,
    first_block: Option<usize>,
}

fn read<'de, D: Deserializer<'de>>(
    deserializer: D,
    default: impl FnOnce(Phases) -> Phase,
) -> Result<Phase, D::Error> {
    let written = Written::deserialize(deserializer)?;
    let default = default(Phases::default());
    Ok(Phase {
        steps: written.steps,
        batch: written.batch.unwrap_or(default.batch),
        learning_rate: written.learning_rate.unwrap_or(default.learning_rate),
        ship_share: written.ship_share.unwrap_or(default.ship_share),
        tune_every: written.tune_every.unwrap_or(default.tune_every),
        patience: written.patience.unwrap_or(default.patience),
        first_block: written.first_block.or(default.first_block),
    })
}

fn gate_head<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Phase, D::Error> {
    read(deserializer, |phases| phases.gate_head)
}
fn gate_blocks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Phase, D::Error> {
    read(deserializer, |phases| phases.gate_blocks)
}
fn decoder<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Phase, D::Error> {
    read(deserializer, |phases| phases.decoder)
}
fn unet<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Phase, D::Error> {
    read(deserializer, |phases| phases.unet)
}
fn gate_int8<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Phase, D::Error> {
    read(deserializer, |phases| phases.gate_int8)
}
fn unet_int8<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Phase, D::Error> {
    read(deserializer, |phases| phases.unet_int8)
}

impl Phases {
    pub(crate) fn get(&self, name: PhaseName) -> &Phase {
        match name {
            PhaseName::GateHead => &self.gate_head,
            PhaseName::GateBlocks => &self.gate_blocks,
            PhaseName::Decoder => &self.decoder,
            PhaseName::Unet => &self.unet,
            PhaseName::GateInt8 => &self.gate_int8,
            PhaseName::UnetInt8 => &self.unet_int8,
        }
    }

    /// # Errors
    /// If a value makes no sense; the message names the key.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            PhaseName::FLOAT
                .iter()
                .any(|&name| self.get(name).steps > 0),
            "no phase under [phases] has `steps`: nothing would be trained"
        );
        for name in PhaseName::ALL {
            self.get(name).check(name)?;
        }
        Ok(())
    }
}

impl Phase {
    /// Blocks of the encoder that stay as they are; the stem with them, unless there are none.
    pub(crate) fn frozen_blocks(&self) -> usize {
        self.first_block.unwrap_or(BLOCKS)
    }

    fn check(&self, name: PhaseName) -> Result<()> {
        let table = &format!("[phases.{}]", name.name());
        within("steps", table, self.steps, 0..=STEPS)?;
        within("batch", table, self.batch, BATCH)?;
        within("learning-rate", table, self.learning_rate, RATES)?;
        within("ship-share", table, self.ship_share, SHARE)?;
        within("tune-every", table, self.tune_every, 1..=STEPS)?;
        within("patience", table, self.patience, 0..=STEPS)?;
        if let Some(block) = self.first_block {
            ensure!(
                matches!(name, PhaseName::GateBlocks | PhaseName::Unet),
                "`first-block` of {table} makes no sense: gate-blocks and unet alone begin at a block"
            );
            within("first-block", table, block, 0..=BLOCKS)?;
        }
        Ok(())
    }
}
