//! A network while it learns: its weights, what the optimiser remembers, and their average.

use std::collections::BTreeMap;

use anyhow::Result;
use burn::tensor::{Tensor, backend::Backend};

use crate::config::{Config, Losses, PhaseName};
use crate::data::Tile;
use crate::nn::{AdamW, Ema, FusedOps, Params, UpdateOps, apply, collect};
use crate::run_folder::Checkpoint;
use crate::task::Task;

/// A back end that can train.
pub(crate) trait Engine: FusedOps + UpdateOps {}

impl<B: FusedOps + UpdateOps> Engine for B {}

/// A network in training.
pub(crate) struct Learner<B: Backend, M> {
    /// Always there, but for the moment in which the optimiser holds it.
    model: Option<M>,
    optimiser: AdamW<B>,
    average: Ema<B>,
    frozen_blocks: usize,
    losses: Losses,
}

impl<B: Engine, M: Task<B>> Learner<B, M> {
    /// Starts a phase.
    pub(crate) fn new(model: M, config: &Config, name: PhaseName) -> Self {
        Self {
            average: Ema::new(config.optimiser.ema, 0, &model.valid()),
            model: Some(model),
            optimiser: AdamW::new(config.optimiser),
            frozen_blocks: config.phases.get(name).frozen_blocks(),
            losses: config.loss,
        }
    }

    /// Goes on with a phase.
    ///
    /// # Errors
    /// If the checkpoint is of another network.
    pub(crate) fn restore(
        model: M,
        config: &Config,
        name: PhaseName,
        checkpoint: &Checkpoint,
        device: &B::Device,
    ) -> Result<Self> {
        let steps = checkpoint.state.step;
        let of = |prefix: &str| -> Params {
            let named = checkpoint.tensors.0.iter();
            let tensors = named.filter_map(|(name, data)| {
                Some((name.strip_prefix(prefix)?.to_owned(), data.clone()))
            });
            Params(tensors.collect())
        };
        let average = apply(model.valid(), &of("average."))?;
        Ok(Self {
            average: Ema::new(config.optimiser.ema, steps, &average),
            model: Some(apply(model, &of("weights."))?),
            optimiser: AdamW::restore(config.optimiser, steps, &checkpoint.tensors, device)?,
            frozen_blocks: config.phases.get(name).frozen_blocks(),
            losses: config.loss,
        })
    }

    /// Every tensor that [`Learner::restore`] needs.
    pub(crate) fn save(&self) -> Params {
        let named = |prefix: &'static str, params: Params| {
            let tensors = params.0.into_iter();
            tensors.map(move |(name, data)| (format!("{prefix}{name}"), data))
        };
        let mut tensors: BTreeMap<_, _> = self.optimiser.save().0;
        tensors.extend(named("weights.", collect(&self.model().valid())));
        tensors.extend(named("average.", collect(&self.averaged())));
        Params(tensors)
    }

    /// Takes one step; gives its loss and the norm of its gradient, `[2]`.
    pub(crate) fn step(&mut self, tiles: &[Tile], rate: f64, device: &B::Device) -> Tensor<B, 1> {
        let model = self.model.take().expect("no step is under way");
        let loss = model.loss(tiles, self.frozen_blocks, &self.losses, device);
        let gradients = loss.backward();
        let (model, norm) = self.optimiser.step(model, gradients, rate);
        self.average.follow(&model.valid());
        self.model = Some(model);
        Tensor::cat(vec![loss.inner(), norm], 0)
    }

    /// The network with averaged weights and statistics.
    pub(crate) fn averaged(&self) -> M::InnerModule {
        self.average.put(self.model().valid())
    }

    fn model(&self) -> &M {
        self.model.as_ref().expect("no step is under way")
    }
}
