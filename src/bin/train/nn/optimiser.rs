//! AdamW, and the running average of the weights that it moves.

use std::collections::BTreeMap;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorData, TensorMetadata, TensorPrimitive};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::ops::primitive;
use super::params::{ParamError, Params};
use crate::config::Optimiser;

/// Added to the root of the squares' mean.
const EPSILON: f32 = 1e-8;

/// Values that one task updates at least.
const CHUNK: usize = 1 << 14;

type Gradients<B> = <Autodiff<B> as AutodiffBackend>::Gradients;

/// What AdamW remembers of a tensor, in its shape.
#[derive(Debug, Clone)]
pub(crate) struct Moments<B: Backend> {
    /// Running mean of the gradient.
    pub(crate) first: FloatTensor<B>,
    /// Running mean of its square.
    pub(crate) second: FloatTensor<B>,
}

/// One step of AdamW, the same for all tensors but for `keep`.
#[derive(Debug, Clone)]
pub(crate) struct Rule<B: Backend> {
    pub(crate) rate: f32,
    pub(crate) betas: [f32; 2],
    /// `1 - beta^t` of both, which undo the start from zero.
    pub(crate) corrections: [f32; 2],
    /// What the gradient is multiplied with so that no step is too large, `[1]`.
    pub(crate) scale: FloatTensor<B>,
    /// Share of the weight that does not decay.
    pub(crate) keep: f32,
}

/// Updates that a back end may do better than by composing burn's own operators.
pub(crate) trait UpdateOps: Backend {
    /// AdamW (Loshchilov and Hutter 2019, algorithm 2) on one tensor.
    fn adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        moments: Moments<Self>,
        rule: &Rule<Self>,
    ) -> (FloatTensor<Self>, Moments<Self>) {
        composed_adamw::<Self>(weight, grad, moments, rule)
    }

    /// `average + (value - average) * weight`: a value that equals its average leaves it as it is.
    fn blend(
        average: FloatTensor<Self>,
        value: FloatTensor<Self>,
        weight: f32,
    ) -> FloatTensor<Self> {
        composed_blend::<Self>(average, value, weight)
    }
}

#[cfg(feature = "cuda")]
impl UpdateOps for burn::backend::Cuda {}

fn composed_adamw<B: Backend>(
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    moments: Moments<B>,
    rule: &Rule<B>,
) -> (FloatTensor<B>, Moments<B>) {
    // Whatever the rank of the tensors, they are worked on as vectors.
    let shape = weight.shape();
    let vector =
        |t: FloatTensor<B>| wrap::<B, 1>(B::float_reshape(t, [shape.num_elements()].into()));
    let [beta1, beta2] = rule.betas;
    let [correction1, correction2] = rule.corrections;
    let grad = vector(grad) * wrap::<B, 1>(rule.scale.clone());
    let first = vector(moments.first) * beta1 + grad.clone() * (1.0 - beta1);
    let second = vector(moments.second) * beta2 + grad.clone() * grad * (1.0 - beta2);
    let deviation = (second.clone() / correction2).sqrt() + EPSILON;
    let weight = vector(weight) * rule.keep - first.clone() / deviation * (rule.rate / correction1);
    let back = |t: Tensor<B, 1>| B::float_reshape(primitive(t), shape.clone());
    let moments = Moments {
        first: back(first),
        second: back(second),
    };
    (back(weight), moments)
}

fn composed_blend<B: Backend>(
    average: FloatTensor<B>,
    value: FloatTensor<B>,
    weight: f32,
) -> FloatTensor<B> {
    let difference = B::float_sub(value, average.clone());
    B::float_add(average, B::float_mul_scalar(difference, weight.into()))
}

/// One pass over memory, in place where a tensor is nobody else's.
impl UpdateOps for Flex {
    fn adamw(
        weight: FlexTensor,
        grad: FlexTensor,
        moments: Moments<Self>,
        rule: &Rule<Self>,
    ) -> (FlexTensor, Moments<Self>) {
        let (mut weight, grad) = (whole(weight), whole(grad));
        let (mut first, mut second) = (whole(moments.first), whole(moments.second));
        let scale = rule.scale.storage::<f32>()[0];
        let [beta1, beta2] = rule.betas;
        let [correction1, correction2] = rule.corrections;
        let rate = rule.rate / correction1;
        let moments = first
            .storage_mut::<f32>()
            .par_chunks_mut(CHUNK)
            .zip(second.storage_mut::<f32>().par_chunks_mut(CHUNK));
        weight
            .storage_mut::<f32>()
            .par_chunks_mut(CHUNK)
            .zip(grad.storage::<f32>().par_chunks(CHUNK))
            .zip(moments)
            .for_each(|((w, g), (m, v))| {
                for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                    let g = g * scale;
                    *m = *m * beta1 + g * (1.0 - beta1);
                    *v = *v * beta2 + g * g * (1.0 - beta2);
                    *w = *w * rule.keep - *m / ((*v / correction2).sqrt() + EPSILON) * rate;
                }
            });
        (weight, Moments { first, second })
    }

    fn blend(average: FlexTensor, value: FlexTensor, weight: f32) -> FlexTensor {
        let (mut average, value) = (whole(average), whole(value));
        average
            .storage_mut::<f32>()
            .par_chunks_mut(CHUNK)
            .zip(value.storage::<f32>().par_chunks(CHUNK))
            .for_each(|(average, value)| {
                for (average, value) in average.iter_mut().zip(value) {
                    *average += (value - *average) * weight;
                }
            });
        average
    }
}

/// The tensor with its values in order in a storage of its own size.
fn whole(tensor: FlexTensor) -> FlexTensor {
    let fits = tensor.storage::<f32>().len() == tensor.layout().shape().num_elements();
    if fits && tensor.is_contiguous() && tensor.layout().start_offset() == 0 {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// AdamW over the tensors of a network, known by name; those without a gradient stay as they are.
pub(crate) struct AdamW<B: Backend> {
    settings: Optimiser,
    steps: i32,
    moments: BTreeMap<String, Moments<B>>,
}

impl<B: UpdateOps> AdamW<B> {
    pub(crate) fn new(settings: Optimiser) -> Self {
        Self {
            settings,
            steps: 0,
            moments: BTreeMap::new(),
        }
    }

    /// Moves the weights one step against the gradients; gives the norm of all gradients together
    /// before they were clipped, `[1]`.
    pub(crate) fn step<M: AutodiffModule<Autodiff<B>>>(
        &mut self,
        model: M,
        mut gradients: Gradients<B>,
        rate: f64,
    ) -> (M, Tensor<B, 1>) {
        let mut squares = Squares {
            gradients: &gradients,
            sums: Vec::new(),
        };
        model.visit(&mut squares);
        let norm = Tensor::cat(squares.sums, 0).sum().sqrt();
        let clip = self.settings.clip_norm;
        self.steps += 1;
        let betas = self.settings.betas;
        let mut update = Update {
            rule: Rule {
                rate: rate as f32,
                betas: betas.map(|beta| beta as f32),
                corrections: betas.map(|beta| (1.0 - beta.powi(self.steps)) as f32),
                scale: primitive(norm.clone().clamp_min(clip).recip() * clip),
                keep: 1.0,
            },
            decayed: (1.0 - rate * self.settings.weight_decay) as f32,
            gradients: &mut gradients,
            moments: &mut self.moments,
            path: Vec::new(),
        };
        (model.map(&mut update), norm)
    }

    /// The moments by name, for a checkpoint: those of tensor `x` are `first.x` and `second.x`.
    pub(crate) fn save(&self) -> Params {
        let data = |t: &FloatTensor<B>| read::<B>(t.clone());
        let entries = self.moments.iter().flat_map(|(name, moments)| {
            [
                (format!("first.{name}"), data(&moments.first)),
                (format!("second.{name}"), data(&moments.second)),
            ]
        });
        Params(entries.collect())
    }

    /// Takes up the moments of a checkpoint that was made after `steps` steps.
    ///
    /// # Errors
    /// If half of a pair is missing.
    pub(crate) fn restore(
        settings: Optimiser,
        steps: usize,
        saved: &Params,
        device: &B::Device,
    ) -> Result<Self, ParamError> {
        let mut moments = BTreeMap::new();
        for (name, first) in &saved.0 {
            let Some(name) = name.strip_prefix("first.") else {
                continue;
            };
            let second = format!("second.{name}");
            let second = saved.0.get(&second).ok_or(ParamError::Missing(second))?;
            let pair = Moments {
                first: B::float_from_data(first.clone(), device),
                second: B::float_from_data(second.clone(), device),
            };
            moments.insert(name.to_owned(), pair);
        }
        Ok(Self {
            settings,
            steps: steps as i32,
            moments,
        })
    }
}

fn wrap<B: Backend, const D: usize>(tensor: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

fn read<B: Backend>(tensor: FloatTensor<B>) -> TensorData {
    burn::tensor::try_read_sync(B::float_into_data(tensor))
        .expect("no back end of this project needs an event loop to read")
        .expect("the device gives its tensors back")
        .convert::<f32>()
}

/// Sums the squares of each gradient.
struct Squares<'a, B: Backend> {
    gradients: &'a Gradients<B>,
    sums: Vec<Tensor<B, 1>>,
}

impl<B: Backend> ModuleVisitor<Autodiff<B>> for Squares<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Autodiff<B>, D>>) {
        if let Some(grad) = param.val().grad(self.gradients) {
            self.sums.push((grad.clone() * grad).sum());
        }
    }
}

/// Applies [`Rule`] to each tensor that has a gradient.
struct Update<'a, B: Backend> {
    rule: Rule<B>,
    /// The rule's `keep` for tensors that decay.
    decayed: f32,
    gradients: &'a mut Gradients<B>,
    moments: &'a mut BTreeMap<String, Moments<B>>,
    path: Vec<String>,
}

impl<B: UpdateOps> ModuleMapper<Autodiff<B>> for Update<'_, B> {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Autodiff<B>, D>>,
    ) -> Param<Tensor<Autodiff<B>, D>> {
        param.map(|weight| {
            let Some(grad) = weight.grad_remove(self.gradients) else {
                return weight;
            };
            let name = self.path.join(".");
            let zero = || primitive(grad.zeros_like());
            let moments = self.moments.remove(&name).unwrap_or_else(|| Moments {
                first: zero(),
                second: zero(),
            });
            // Vectors are biases and batch norms.
            self.rule.keep = if D > 1 { self.decayed } else { 1.0 };
            let weight = primitive(weight.inner());
            let (weight, moments) = B::adamw(weight, primitive(grad), moments, &self.rule);
            self.moments.insert(name, moments);
            Tensor::from_inner(wrap::<B, D>(weight)).require_grad()
        })
    }

    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

/// The exponential moving average of a network's float tensors, running statistics included. It
/// follows closely at first, so that the start leaves no trace: its decay is
/// `min(decay, (1 + t) / (10 + t))` at step t, as in TensorFlow's `ExponentialMovingAverage`.
pub(crate) struct Ema<B: Backend> {
    decay: f64,
    updates: usize,
    averages: BTreeMap<String, FloatTensor<B>>,
}

impl<B: UpdateOps> Ema<B> {
    /// An average that has seen `updates` steps and stands at `model`.
    pub(crate) fn new(decay: f64, updates: usize, model: &impl Module<B>) -> Self {
        let mut ema = Self {
            decay,
            updates,
            averages: BTreeMap::new(),
        };
        // Full weight to the first values.
        model.visit(&mut Follow {
            ema: &mut ema,
            weight: 1.0,
            path: Vec::new(),
        });
        ema
    }

    /// Takes in the model after a step.
    pub(crate) fn follow(&mut self, model: &impl Module<B>) {
        let t = self.updates as f64;
        let decay = self.decay.min((1.0 + t) / (10.0 + t));
        self.updates += 1;
        model.visit(&mut Follow {
            ema: self,
            weight: (1.0 - decay) as f32,
            path: Vec::new(),
        });
    }

    /// `model` with the averages in place of its own tensors.
    pub(crate) fn put<M: Module<B>>(&self, model: M) -> M {
        model.map(&mut Put {
            averages: &self.averages,
            path: Vec::new(),
        })
    }
}

struct Follow<'a, B: Backend> {
    ema: &'a mut Ema<B>,
    weight: f32,
    path: Vec<String>,
}

impl<B: UpdateOps> ModuleVisitor<B> for Follow<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let name = self.path.join(".");
        let value = primitive(param.val());
        let average = match self.ema.averages.remove(&name) {
            Some(average) => B::blend(average, value, self.weight),
            None => value,
        };
        self.ema.averages.insert(name, average);
    }

    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

struct Put<'a, B: Backend> {
    averages: &'a BTreeMap<String, FloatTensor<B>>,
    path: Vec<String>,
}

impl<B: UpdateOps> ModuleMapper<B> for Put<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match self.averages.get(&self.path.join(".")) {
            Some(average) => param.map(|_| wrap::<B, D>(average.clone())),
            None => param,
        }
    }

    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::FlexDevice;

    use super::*;
    use crate::nn::collect;

    type Ad = Autodiff<Flex>;

    /// A matrix, which decays, and a bias, which does not.
    #[derive(Module, Debug)]
    struct Toy<B: Backend> {
        weight: Param<Tensor<B, 2>>,
        bias: Param<Tensor<B, 1>>,
        idle: Param<Tensor<B, 1>>,
    }

    fn toy() -> Toy<Ad> {
        let leaf = |values: &[f32]| Tensor::<Ad, 1>::from_floats(values, &FlexDevice);
        Toy {
            weight: Param::from_tensor(leaf(&[1.0, -2.0]).reshape([1, 2])),
            bias: Param::from_tensor(leaf(&[0.5])),
            idle: Param::from_tensor(leaf(&[7.0])),
        }
    }

    /// `3 w0 + 4 w1 + 12 b`: its gradient is (3, 4, 12), of norm 13, wherever it is taken.
    fn loss(toy: &Toy<Ad>) -> Tensor<Ad, 1> {
        let slopes = Tensor::<Ad, 2>::from_floats([[3.0, 4.0]], &FlexDevice);
        (toy.weight.val() * slopes).sum() + toy.bias.val() * 12.0
    }

    fn settings(clip_norm: f64) -> Optimiser {
        Optimiser {
            weight_decay: 0.1,
            betas: [0.9, 0.99],
            clip_norm,
            ema: 0.5,
        }
    }

    fn values(toy: &Toy<Ad>) -> [f32; 4] {
        let params = collect(&toy.valid());
        let of = |name: &str| params.values(name);
        [
            of("weight")[0],
            of("weight")[1],
            of("bias")[0],
            of("idle")[0],
        ]
    }

    fn assert_close(got: &[f32], want: &[f64]) {
        for (a, b) in got.iter().zip(want) {
            assert!((f64::from(*a) - b).abs() < 2e-6, "{got:?} is not {want:?}");
        }
    }

    #[test]
    fn steps_by_hand() {
        let mut optimiser = AdamW::<Flex>::new(settings(1e9));
        let (toy, norm) = {
            let toy = toy();
            let gradients = loss(&toy).backward();
            optimiser.step(toy, gradients, 0.2)
        };
        assert!((norm.into_scalar() - 13.0).abs() < 1e-5);
        // The first step's corrected moments are g and g^2: each weight moves by the rate, after the
        // matrix lost 0.2 * 0.1 of itself.
        assert_close(&values(&toy), &[0.98 - 0.2, -1.96 - 0.2, 0.5 - 0.2, 7.0]);
        // A second step along -g: m = (0.9 * 0.1 - 0.1) g, corrected by 1 - 0.81; v stays g^2.
        let gradients = (-loss(&toy)).backward();
        let (toy, _) = optimiser.step(toy, gradients, 0.2);
        let step = 0.2 * (0.09 - 0.1) / 0.19;
        let want = [0.78 * 0.98 - step, -2.16 * 0.98 - step, 0.3 - step, 7.0];
        assert_close(&values(&toy), &want);
    }

    #[test]
    fn gradients_are_clipped_by_their_common_norm() {
        let moments = |clip| {
            let mut optimiser = AdamW::<Flex>::new(settings(clip));
            let model = toy();
            let gradients = loss(&model).backward();
            optimiser.step(model, gradients, 0.1);
            let saved = optimiser.save();
            [
                saved.values("first.weight"),
                saved.values("first.bias"),
                saved.values("second.bias"),
            ]
            .concat()
        };
        // A tenth of the gradient, and a hundredth of its square.
        assert_close(&moments(20.0), &[0.3, 0.4, 1.2, 1.44]);
        assert_close(&moments(6.5), &[0.15, 0.2, 0.6, 0.36]);
    }

    #[test]
    fn going_on_from_saved_moments_changes_nothing() {
        let step = |toy: Toy<Ad>, optimiser: &mut AdamW<Flex>| {
            let gradients = loss(&toy).backward();
            optimiser.step(toy, gradients, 0.1).0
        };
        let mut optimiser = AdamW::new(settings(1.0));
        let first = step(toy(), &mut optimiser);
        let saved = optimiser.save();
        let mut restored = AdamW::restore(settings(1.0), 1, &saved, &FlexDevice).expect("complete");
        let want = step(first.clone(), &mut optimiser);
        assert_eq!(values(&step(first, &mut restored)), values(&want));
        assert_eq!(restored.save(), optimiser.save());
    }

    #[test]
    fn the_average_by_hand() {
        let with = |value: f32| {
            let mut toy = toy().valid();
            toy.bias = Param::from_tensor(Tensor::from_floats([value], &FlexDevice));
            toy
        };
        let mut ema = Ema::<Flex>::new(0.5, 0, &with(1.0));
        let mut average = 1.0;
        // Decays (1 + t) / (10 + t) = 0.1, 2/11, 0.25, ... until they reach 0.5 at t = 8.
        for t in 0..12 {
            let value = (t * t) as f32;
            ema.follow(&with(value));
            let decay = f64::min(0.5, f64::from(1 + t) / f64::from(10 + t));
            average = decay * average + (1.0 - decay) * f64::from(value);
        }
        let averaged = ema.put(with(0.0));
        assert_close(&[averaged.bias.val().into_scalar()], &[average]);
        assert_eq!(averaged.idle.val().into_scalar(), 7.0, "what stays, stays");
    }

    #[test]
    fn one_pass_agrees_with_the_composed_operators() {
        let random = |seed: f32| {
            let values: Vec<f32> = (0..40_000).map(|i| (i as f32 * seed).sin()).collect();
            FlexTensor::from_data(TensorData::new(values, [200, 200]))
        };
        let rule = Rule {
            rate: 0.1,
            betas: [0.9, 0.99],
            corrections: [0.4, 0.2],
            scale: FlexTensor::from_data(TensorData::new(vec![0.7f32], [1])),
            keep: 0.99,
        };
        let moments = || Moments {
            first: random(0.31),
            second: {
                let root = wrap::<Flex, 2>(random(0.17));
                primitive(root.clone() * root)
            },
        };
        // A transposed tensor, whose values are not in order.
        let transposed = || primitive(wrap::<Flex, 2>(random(0.7)).transpose());
        let one = Flex::adamw(random(0.1), transposed(), moments(), &rule);
        let two = composed_adamw::<Flex>(random(0.1), transposed(), moments(), &rule);
        let tolerance = burn::tensor::Tolerance::<f32>::rel_abs(1e-5, 1e-5);
        let agree = |a: FlexTensor, b: FlexTensor| {
            a.into_data()
                .assert_approx_eq::<f32>(&b.into_data(), tolerance);
        };
        agree(one.0, two.0);
        agree(one.1.first, two.1.first);
        agree(one.1.second, two.1.second);
        agree(
            Flex::blend(random(0.1), transposed(), 0.25),
            composed_blend::<Flex>(random(0.1), transposed(), 0.25),
        );
    }
}
