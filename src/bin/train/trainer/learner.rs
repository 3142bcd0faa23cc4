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
    const RATE: f64 = 1e-3;

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

    /// Loss and gradient norm of each of the first steps, and a checkpoint after them.
    fn learn<B: Engine, M: Task<B>>(
        model: M,
        name: PhaseName,
        device: &B::Device,
    ) -> (Vec<[f32; 2]>, Checkpoint) {
        let tiles = tiles();
        let mut learner = Learner::new(model, &config(), name);
        let mut step = || figures(learner.step(&tiles, RATE, device));
        let figures = (0..STEPS).map(|_| step()).collect();
        let state = State {
            step: STEPS,
            ..State::after(None)
        };
        let tensors = learner.save();
        (figures, Checkpoint { state, tensors })
    }

    fn figures<B: Backend>(of_step: Tensor<B, 1>) -> [f32; 2] {
        let figures = of_step.into_data().convert::<f32>();
        let figures: Vec<f32> = figures.to_vec().expect("f32");
        figures.try_into().expect("loss and norm")
    }

    /// The same weights learn the same on both, as far as products of ten bits behind the point let
    /// them, and a checkpoint of the GPU goes on on the CPU.
    fn agree<G: Task<Cuda>, C: Task<Flex>>(gpu: G, cpu: C, name: PhaseName) {
        let cpu_device = &FlexDevice;
        let gpu = apply(gpu, &collect(&cpu.valid())).expect("the same network");
        let (on_gpu, checkpoint) = learn::<Cuda, G>(gpu, name, &Default::default());
        let (on_cpu, _) = learn::<Flex, C>(cpu.clone(), name, cpu_device);
        println!("{}: {on_gpu:?}, on the CPU {on_cpu:?}", name.name());
        let near = |gpu: f32, cpu: f32, most: f32| {
            assert!((gpu - cpu).abs() <= most * cpu.abs(), "{gpu}, not {cpu}");
        };
        near(on_gpu[0][0], on_cpu[0][0], 0.01);
        near(on_gpu[0][1], on_cpu[0][1], 0.1);
        for ([gpu, _], [cpu, _]) in on_gpu.iter().zip(&on_cpu) {
            near(*gpu, *cpu, 0.3);
        }
        let ([first, _], [last, _]) = (on_gpu[0], on_gpu[STEPS - 1]);
        assert!(last < 0.9 * first, "learns nothing: {first}, {last}");
        let mut restored: Learner<Flex, C> =
            Learner::restore(cpu, &config(), name, &checkpoint, cpu_device).expect("fits");
        let [next, _] = figures(restored.step(&tiles(), RATE, cpu_device));
        assert!(next < 1.1 * last, "{next} after {last}");
    }

    #[test]
    fn networks_learn_on_a_gpu_as_on_the_cpu() {
        if !device::is_there() {
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
