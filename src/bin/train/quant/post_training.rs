//! From a float graph to integers without training: ranges, equalisation, bias correction.

use std::sync::Arc;

use anyhow::{Result, ensure};
use burn::tensor::Tensor;

use super::Quantized;
use super::correct::correct;
use super::cost::{choose_schemes, cost, costs};
use super::equalise::equalise;
use super::forward::forward;
use super::observe::{Observed, observe};
use crate::export::Graph;
use crate::nn::FusedOps;
use crate::stop::Stop;

/// The best that rounding after training can do by batches `[N, S, S, 3]` of tiles: each step is kept if
/// it lessens what rounding changes in the output for `probe`, some more or the same.
///
/// # Errors
/// If weights or maps are no numbers, a layer gives nothing but zeros, or the user asks to stop.
pub(crate) fn post_training<B: FusedOps>(
    graph: Graph,
    batches: &[Tensor<B, 4>],
    probe: &Tensor<B, 4>,
    stop: &Stop,
) -> Result<Quantized> {
    let name = graph.name;
    graph.check_weights()?;
    let observed = observe(&graph, batches, stop)?;
    let dead = observed.dead(&graph);
    ensure!(
        dead.is_empty(),
        "{name}: layers {} give nothing but zeros whatever they see: the run is damaged or was trained at far too high a learning rate; train it anew",
        dead.join(", ")
    );
    let silent = observed.silent_channels();
    if silent > 0 {
        log::info!("{name}: {silent} channels are always zero; they cost nothing but time");
    }
    let quantize = |graph: Graph, observed: &Observed| {
        let (schemes, tally) = choose_schemes(&graph, observed, probe, stop)?;
        let tally = tally
            .iter()
            .map(|(rule, count)| format!("{count} by {}", rule.name()));
        let tally: Vec<String> = tally.collect();
        log::info!("{name}: ranges of maps: {}", tally.join(", "));
        Quantized::new(graph, schemes)
    };
    let wanted = forward(&graph, probe.clone(), |_, map| map);
    let weigh = |quantized: &Quantized, how: &str| {
        let cost = cost(quantized, &wanted, probe);
        log::info!("{name}: {how}: {cost:.4}");
        cost
    };
    let mut best = quantize(graph.clone(), &observed)?;
    let mut least = weigh(&best, "rounded");

    let equal = equalise(graph.clone(), &observed);
    let of_equal = observe(&equal, batches, stop)?;
    let equal = quantize(equal, &of_equal)?;
    let equal_cost = weigh(&equal, "channels equalised");
    if equal_cost < least {
        (best, least) = (equal, equal_cost);
    }

    let corrected = correct(&best, probe);
    let corrected = Quantized::new(corrected, Arc::clone(&best.schemes))?;
    let corrected_cost = weigh(&corrected, "biases corrected");
    if corrected_cost < least {
        best = corrected;
    }
    log::info!("{name}: {}", costs(&best, &wanted, probe, stop)?);
    Ok(best)
}
