//! What rounding costs: of each map by each rule, to choose one, and of each layer, to tell which to
//! look at.

use std::fmt;
use std::sync::Arc;

use burn::tensor::Tensor;

use super::forward::{again, all_maps, forward};
use super::observe::Observed;
use super::ranges::Rule;
use super::{Quantized, Scheme};
use crate::export::{Graph, Op};
use crate::nn::{FusedOps, round_to};
use crate::progress::count;
use crate::stop::{Stop, Stopped};

/// Layers that a table names.
const NAMED: usize = 8;

/// What rounding costs a network.
pub(crate) struct Costs {
    /// Root mean square of what all changes together change in the output of the network in floats.
    all: f64,
    /// The layers, dearest first.
    layers: Vec<Cost>,
}

/// What rounding one layer alone costs.
struct Cost {
    layer: String,
    /// Root mean square of what it changes in the output.
    output: f64,
    /// Signal to noise of its own map in decibels.
    decibels: f64,
}

/// The scheme of each map, and how many maps took each rule.
pub(crate) type Chosen = (Arc<[Scheme]>, Vec<(Rule, usize)>);

/// The scheme of each map by the rule that changes the output least, when that map alone is rounded.
///
/// # Errors
/// If the user asks to stop.
pub(crate) fn choose_schemes<B: FusedOps>(
    graph: &Graph,
    observed: &Observed,
    tiles: &Tensor<B, 4>,
    stop: &Stop,
) -> Result<Chosen, Stopped> {
    let maps = all_maps(graph, tiles.clone());
    let output = maps.last().expect("a graph has nodes").clone();
    let mut schemes: Vec<Scheme> = (0..graph.nodes.len())
        .map(|node| observed.scheme(graph, node, Rule::MinMax))
        .collect();
    let mut tally: Vec<(Rule, usize)> = Rule::ALL.map(|rule| (rule, 0)).into();
    let counter = count("choosing ranges", graph.nodes.len());
    for group in 0..graph.nodes.len() {
        stop.check()?;
        counter.inc(1);
        let fixed = matches!(graph.nodes[group].op, Op::Image | Op::Sigmoid);
        if fixed || observed.groups[group] != group {
            continue;
        }
        let error = |rule: Rule| {
            let grid = observed.scheme(graph, group, rule).grid();
            let members = |at: usize| observed.groups[at] == group;
            let found = again(graph, &maps, members, |_, map| round_to(map, grid));
            rms(found - output.clone())
        };
        let (index, _) = (Rule::ALL.iter().map(|&rule| error(rule)).enumerate())
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .expect("some rules");
        tally[index].1 += 1;
        let scheme = observed.scheme(graph, group, Rule::ALL[index]);
        for (at, own) in schemes.iter_mut().enumerate() {
            if observed.groups[at] == group {
                *own = scheme;
            }
        }
    }
    counter.finish_and_clear();
    Ok((schemes.into(), tally))
}

/// What it costs to have `quantized` in place of a network in floats with the output `wanted`: root mean
/// square.
pub(crate) fn cost<B: FusedOps>(
    quantized: &Quantized,
    wanted: &Tensor<B, 4>,
    tiles: &Tensor<B, 4>,
) -> f64 {
    rms(quantized.simulate(tiles.clone()) - wanted.clone())
}

/// That, and what it costs to round each of the layers by itself.
///
/// # Errors
/// If the user asks to stop.
pub(crate) fn costs<B: FusedOps>(
    quantized: &Quantized,
    wanted: &Tensor<B, 4>,
    tiles: &Tensor<B, 4>,
    stop: &Stop,
) -> Result<Costs, Stopped> {
    let all = cost(quantized, wanted, tiles);
    let graph = &quantized.graph;
    let maps = all_maps(graph, tiles.clone());
    let output = maps.last().expect("a graph has nodes").clone();
    let mut layers = Vec::new();
    let counter = count("weighing layers", graph.nodes.len());
    for (at, node) in graph.nodes.iter().enumerate() {
        stop.check()?;
        counter.inc(1);
        if matches!(node.op, Op::Image) {
            continue;
        }
        let mut rounded = graph.clone();
        quantized.round(&mut rounded, at);
        let mut own = 0.0;
        let grid = quantized.schemes[at].grid();
        let found = again(
            &rounded,
            &maps,
            |node| node == at,
            |_, map| {
                let map = round_to(map, grid);
                own = rms(map.clone() - maps[at].clone());
                map
            },
        );
        layers.push(Cost {
            layer: node.name.clone(),
            output: rms(found - output.clone()),
            decibels: 20.0 * (rms(maps[at].clone()) / own).log10(),
        });
    }
    counter.finish_and_clear();
    layers.sort_by(|a, b| b.output.total_cmp(&a.output));
    Ok(Costs { all, layers })
}

impl Quantized {
    /// The output for tiles `[N, S, S, 3]`, in floats with all that rounding does.
    pub(crate) fn simulate<B: FusedOps>(&self, tiles: Tensor<B, 4>) -> Tensor<B, 4> {
        simulate(&self.rounded(), &self.schemes, tiles)
    }
}

/// [`Quantized::simulate`] of one that was [`Quantized::rounded`].
pub(crate) fn simulate<B: FusedOps>(
    rounded: &Graph,
    schemes: &[Scheme],
    tiles: Tensor<B, 4>,
) -> Tensor<B, 4> {
    forward(rounded, tiles, |at, map| round_to(map, schemes[at].grid()))
}

fn rms<B: FusedOps>(x: Tensor<B, 4>) -> f64 {
    let square: f32 = x
        .powi_scalar(2)
        .mean()
        .into_data()
        .iter()
        .next()
        .expect("one");
    f64::from(square).sqrt()
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "rounding changes the output by {:.4} (root mean square); by layer, dearest first:",
            self.all
        )?;
        writeln!(f, "  {:<24} {:>10} {:>14}", "layer", "output", "own map")?;
        for cost in self.layers.iter().take(NAMED) {
            writeln!(
                f,
                "  {:<24} {:>10.4} {:>11.1} dB",
                cost.layer, cost.output, cost.decibels
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::fixtures::{tiles, unet};
    use crate::quant::observe::observe;

    #[test]
    fn a_layer_of_coarse_bytes_costs_more() {
        let (graph, tiles) = (unet(), tiles(4));
        let observed =
            observe(&graph, std::slice::from_ref(&tiles), &Stop::new()).expect("observes");
        let (schemes, tally) =
            choose_schemes(&graph, &observed, &tiles, &Stop::new()).expect("chooses");
        let chosen: usize = tally.iter().map(|(_, count)| count).sum();
        let groups = (0..graph.nodes.len()).filter(|&at| observed.groups[at] == at);
        assert_eq!(chosen, groups.count() - 2, "all but image and probability");

        let fine = Quantized::new(graph.clone(), schemes.clone()).expect("quantizes");
        let at = graph
            .nodes
            .iter()
            .position(|n| n.name == "decoder.2.lateral")
            .expect("there");
        let mut schemes = schemes.to_vec();
        schemes[at].scale *= 16.0;
        let coarse = Quantized::new(graph.clone(), schemes.into()).expect("quantizes");
        let wanted = forward(&graph, tiles.clone(), |_, map| map);
        let [fine, coarse] = [fine, coarse]
            .map(|quantized| costs(&quantized, &wanted, &tiles, &Stop::new()).expect("weighs"));
        let own = |costs: &Costs| {
            let mut named = costs.layers.iter();
            let cost = named.find(|cost| cost.layer == "decoder.2.lateral");
            cost.map(|cost| (cost.output, cost.decibels))
                .expect("listed")
        };
        let (before, after) = (own(&fine), own(&coarse));
        assert!(coarse.all > fine.all && fine.all > 0.0);
        // A step 16 times as wide: 24 dB less, or a little else where the ends clip.
        assert!(
            (before.1 - after.1 - 24.0).abs() < 4.0,
            "{before:?} {after:?}"
        );
        assert!(after.0 > 4.0 * before.0, "{before:?} {after:?}");
        let dearest_first = |costs: &Costs| costs.layers.is_sorted_by(|a, b| a.output >= b.output);
        assert!(dearest_first(&coarse));
        let (table, dearest) = (coarse.to_string(), &coarse.layers[0].layer);
        assert!(table.contains(dearest), "{table}");
    }
}
