//! What the layers of a segment are, in words and numbers.

use super::graph::{Map, Node, Op};

/// A layer as a table shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// What it computes.
    pub name: &'static str,
    /// Height, width and channels of its first input; of its own map where the image is its input.
    pub input: [usize; 3],
    /// Height, width and channels of its map.
    pub output: [usize; 3],
    /// Products that it adds up; none but in a convolution.
    pub products: u64,
}

impl Summary {
    pub(super) fn of(node: &Node, nodes: &[Node]) -> Self {
        let input = node.inputs.first().map_or(node.map, |&at| nodes[at].map);
        let places = |map: Map| (map.height * map.width) as u64;
        // Each weight meets each place of the map on whose grid the window moves.
        let products = match &node.op {
            Op::Pointwise(filters) | Op::Full(filters, _) | Op::Depthwise(filters, _) => {
                filters.weight.len() as u64 * places(node.map)
            }
            Op::Double(filters) => filters.weight.len() as u64 * places(input),
            _ => 0,
        };
        Self {
            name: node.op.name(),
            input: input.shape(),
            output: node.map.shape(),
            products,
        }
    }

    /// Its products, or the bytes of its map where there are none.
    pub(super) fn work(&self) -> u64 {
        let bytes = self.output.iter().product::<usize>() as u64;
        self.products.max(bytes)
    }
}

impl Op {
    /// The operator's name among people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Image(_) => "image",
            Self::Pointwise(_) => "pointwise 1x1",
            Self::Full(..) => "full 3x3",
            Self::Depthwise(..) => "depthwise 3x3",
            Self::Double(_) => "transposed 2x2",
            Self::Add => "add",
            Self::Concat => "concatenate",
            Self::Upsample => "upsample",
            Self::Pool => "pool",
            Self::Table(_) => "table",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arithmetic::{Range, Scheme};
    use super::super::{Filters, Graph, Segment, Window};
    use super::*;

    #[test]
    fn products_are_those_of_the_definition() {
        let scheme = Scheme {
            scale: 1.0,
            zero: 0,
        };
        let filters = |weights: usize, outputs: usize| Filters {
            weight: vec![1; weights],
            scales: vec![0.01; outputs],
            bias: vec![0; outputs],
        };
        let window = Window {
            stride: 2,
            top: 0,
            left: 0,
            bottom: 1,
            right: 1,
        };
        let mut graph = Graph::default();
        let mut input = graph
            .image([8, 6], Box::new([0; 256]), scheme)
            .expect("an image");
        for op in [
            Op::Full(filters(5 * 9 * 3, 5), window),
            Op::Depthwise(
                filters(9 * 5, 5),
                Window {
                    stride: 1,
                    top: 1,
                    left: 1,
                    ..window
                },
            ),
            Op::Pointwise(filters(2 * 5, 2)),
            Op::Double(filters(4 * 7 * 2, 7)),
            Op::Pool,
        ] {
            input = graph
                .push(op, &[input], scheme, Range::FULL)
                .expect("a layer");
        }
        let segment = Segment::new(&graph, &[input], "portable").expect("runs everywhere");
        let found: Vec<_> = segment
            .layers()
            .iter()
            .map(|layer| (layer.name, layer.input, layer.output, layer.products))
            .collect();
        // 4 x 3 places after the stride, of 3 * 9 products for each of 5 channels; then 9 for each of
        // 5, 5 for each of 2, and 2 for each of 7 channels of 8 x 6 places.
        let wanted = [
            ("image", [8, 6, 3], [8, 6, 3], 0),
            ("full 3x3", [8, 6, 3], [4, 3, 5], 12 * 27 * 5),
            ("depthwise 3x3", [4, 3, 5], [4, 3, 5], 12 * 9 * 5),
            ("pointwise 1x1", [4, 3, 5], [4, 3, 2], 12 * 5 * 2),
            ("transposed 2x2", [4, 3, 2], [8, 6, 7], 48 * 2 * 7),
            ("pool", [8, 6, 7], [1, 1, 7], 0),
        ];
        assert_eq!(found, wanted);
    }
}
