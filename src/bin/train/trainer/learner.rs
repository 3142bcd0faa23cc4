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

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use burn::backend::{Autodiff, Cuda};
    use burn_flex::{Flex, FlexDevice};
    use image::{GrayImage, Luma, Rgb, RgbImage};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::device;
    use crate::nn::{DecoderKind, Encoder, Gate, UNet};
    use crate::trainer::State;

    const STEPS: usize = 6;

    /// Dark noise, and in every second tile a bright square with its mask.
    fn tiles() -> Vec<Tile> {
        let mut rng = StdRng::seed_from_u64(1);
        let tile = |index: u32| {
            let ship = |x: u32, y: u32| {
                index.is_multiple_of(2) && (20..34).contains(&x) && (28..36).contains(&y)
            };
            let pixels = RgbImage::from_fn(64, 64, |x, y| {
                let level = if ship(x, y) { 170 } else { 20 };
                Rgb([level + rng.random_range(0..50); 3])
            });
            let mask = GrayImage::from_fn(64, 64, |x, y| Luma([255 * u8::from(ship(x, y))]));
            Tile {
                pixels,
                mask,
                doubtful: false,
            }
        };
        (0..8).map(tile).collect()
    }

    fn config() -> Config {
        toml::from_str(
            r#"
            name = "toy"
            gsd = [1.0, 2.0]
            phases.gate-blocks = { steps = 100 }
            phases.unet = { steps = 100 }
            data = [{ name = "sea", root = ".", licence = "", attribution = "", scale = [1.0, 1.0] }]
        "#,
        )
        .expect("a config")
    }

    /// Losses and gradient norms of the first steps, and a checkpoint after them.
    fn learn<B: Engine, M: Task<B>>(
        model: M,
        name: PhaseName,
        device: &B::Device,
    ) -> (Vec<f32>, Checkpoint) {
        let tiles = tiles();
        let mut learner = Learner::new(model, &config(), name);
        let figures = (0..STEPS).flat_map(|_| {
            let figures = learner.step(&tiles, 1e-3, device).into_data();
            figures.convert::<f32>().to_vec().expect("f32")
        });
        let figures = figures.collect();
        let state = State {
            step: STEPS,
            ..State::after(None)
        };
        let tensors = learner.save();
        (figures, Checkpoint { state, tensors })
    }

    /// The same weights learn the same on both, and a checkpoint of the GPU goes on on the CPU.
    fn agree<G: Task<Cuda>, C: Task<Flex>>(gpu: G, cpu: C, name: PhaseName) {
        let cpu_device = &FlexDevice;
        let gpu = apply(gpu, &collect(&cpu.valid())).expect("the same network");
        let (gpu_figures, checkpoint) = learn::<Cuda, G>(gpu, name, &Default::default());
        let (figures, _) = learn::<Flex, C>(cpu.clone(), name, cpu_device);
        println!("{}: {gpu_figures:?}, on the CPU {figures:?}", name.name());
        // Products of ten bits behind the point, step after step.
        assert!((gpu_figures[0] - figures[0]).abs() <= 0.01 * figures[0]);
        for (gpu, cpu) in gpu_figures.iter().zip(&figures) {
            assert!((gpu - cpu).abs() <= 0.3 * cpu.abs(), "{gpu}, not {cpu}");
        }
        assert!(figures[2 * STEPS - 2] < 0.9 * figures[0], "learns nothing");
        let restored: Learner<Flex, C> =
            Learner::restore(cpu, &config(), name, &checkpoint, cpu_device).expect("fits");
        let saved = restored.save();
        for (name, data) in &checkpoint.tensors.0 {
            data.assert_eq(&saved.0[name], true);
        }
    }

    #[test]
    fn networks_learn_on_a_gpu_as_on_the_cpu() {
        if let Err(why) = device::probe() {
            println!("SKIPPED: no CUDA: {why}");
            return;
        }
        let (gpu, cpu) = (Default::default(), FlexDevice);
        agree(
            Gate::<Autodiff<Cuda>>::new(0.35, &gpu),
            Gate::<Autodiff<Flex>>::new(0.35, &cpu),
            PhaseName::GateBlocks,
        );
        for decoder in [DecoderKind::Light, DecoderKind::Seed] {
            agree(
                UNet::<Autodiff<Cuda>>::on(Encoder::new(0.35, &gpu), decoder, &gpu),
                UNet::<Autodiff<Flex>>::on(Encoder::new(0.35, &cpu), decoder, &cpu),
                PhaseName::Unet,
            );
        }
    }
}
