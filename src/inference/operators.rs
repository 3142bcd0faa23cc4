//! shipwatch's own operators in tract's plans: what makes numbers of an image's bytes.

use std::cell::Cell;
use std::sync::Arc;

use tract_core::internal::*;

use crate::engine::{Graph, Map, Scratch, Segment, Summary};

thread_local! {
    /// Memory of the thread's segments, which mostly run one after another.
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// Lends the thread's memory. A thread that waits for others' parts of a layer may be given another image
/// meanwhile, by rayon: that one has memory of its own.
fn with_scratch(work: impl FnOnce(&mut Scratch)) {
    let mut scratch = SCRATCH.take();
    work(&mut scratch);
    SCRATCH.set(scratch);
}

/// Runs a segment of the engine: an image `[1, H, W, 3] u8` to its output maps, `[1, C, H, W] f32` each.
#[derive(Debug, Clone)]
pub(super) struct RunSegment(Arc<Prepared>);

#[derive(Debug)]
struct Prepared {
    segment: Segment,
    outputs: Vec<Output>,
}

/// A map and the values of its bytes.
#[derive(Debug)]
struct Output {
    map: Map,
    values: [f32; 256],
}

impl RunSegment {
    /// `outputs` are nodes, each with the values of its map's bytes. None if this processor cannot run the
    /// kernel.
    pub(super) fn new(
        graph: &Graph,
        outputs: &[(usize, [f32; 256])],
        kernel: &str,
    ) -> Option<Self> {
        let nodes: Vec<usize> = outputs.iter().map(|(node, _)| *node).collect();
        let segment = Segment::new(graph, &nodes, kernel)?;
        let outputs = segment.outputs().zip(outputs);
        let outputs = outputs.map(|(map, &(_, values))| Output { map, values });
        let outputs = outputs.collect();
        Some(Self(Arc::new(Prepared { segment, outputs })))
    }

    /// What each layer is, in the order in which they run.
    pub(super) fn layers(&self) -> &[Summary] {
        self.0.segment.layers()
    }

    /// Runs the layers alone on an image of the segment's size; `watch` hears of each that is over.
    pub(super) fn watch(&self, image: &[u8], watch: impl FnMut(usize)) {
        with_scratch(|scratch| {
            self.0
                .segment
                .run_watched(image, scratch, watch, |_, _, _| {});
        });
    }
}

impl Output {
    fn shape(&self) -> [usize; 4] {
        let [height, width, channels] = self.map.shape();
        [1, channels, height, width]
    }
}

impl PartialEq for RunSegment {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for RunSegment {}

impl Op for RunSegment {
    fn name(&self) -> StaticName {
        "RunSegment".into()
    }

    op_as_typed_op!();
}

impl EvalOp for RunSegment {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Prepared { segment, outputs } = &*self.0;
        let image = inputs[0].try_as_plain_ram()?;
        let image = image.as_slice::<u8>()?;
        let mut found = tvec![];
        with_scratch(|scratch| {
            segment.run(image, scratch, |nth, bytes, pixel| {
                let Output { map, values } = &outputs[nth];
                found.push(planes(bytes, pixel, map.shape(), values));
            });
        });
        let tensors = found.into_iter().map(|tensor| Ok(tensor?.into_tvalue()));
        tensors.collect()
    }
}

impl TypedOp for RunSegment {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [height, width] = self.0.segment.image().unwrap_or([0, 0]);
        check_image(inputs, height, width)?;
        let outputs = self.0.outputs.iter();
        Ok(outputs.map(|output| f32::fact(output.shape())).collect())
    }
}

/// Makes values of an image's bytes: `[1, S, S, 3] u8` to `[1, 3, S, S] f32`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Planes {
    pub(super) side: usize,
    /// What each byte stands for.
    pub(super) values: Arc<[f32; 256]>,
}

impl Eq for Planes {}

impl Op for Planes {
    fn name(&self) -> StaticName {
        "Planes".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Planes {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let image = inputs[0].try_as_plain_ram()?;
        let image = image.as_slice::<u8>()?;
        let shape = [self.side, self.side, 3];
        let tensor = planes(image, 3, shape, &self.values)?;
        Ok(tvec![tensor.into_tvalue()])
    }
}

impl TypedOp for Planes {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        check_image(inputs, self.side, self.side)?;
        Ok(tvec![f32::fact([1, 3, self.side, self.side])])
    }
}

/// The values of a map's bytes, pixels of `pixel` bytes, as planes `[1, channels, height, width]`.
fn planes(
    bytes: &[u8],
    pixel: usize,
    [height, width, channels]: [usize; 3],
    values: &[f32; 256],
) -> TractResult<Tensor> {
    let mut tensor = Tensor::zero::<f32>(&[1, channels, height, width])?;
    let mut view = tensor.try_as_plain_ram_mut()?;
    let planes = view.as_slice_mut::<f32>()?;
    for (channel, plane) in planes.chunks_exact_mut(height * width).enumerate() {
        for (value, &byte) in plane.iter_mut().zip(bytes[channel..].iter().step_by(pixel)) {
            *value = values[usize::from(byte)];
        }
    }
    Ok(tensor)
}

fn check_image(inputs: &[&TypedFact], height: usize, width: usize) -> TractResult<()> {
    let wanted = u8::fact([1, height, width, 3]);
    ensure!(
        inputs.len() == 1 && inputs[0].compatible_with(&wanted),
        "an image {wanted:?} is wanted"
    );
    Ok(())
}
