//! shipwatch's own operators in tract's plans: what makes numbers of an image's bytes.

use std::cell::RefCell;
use std::sync::Arc;

use tract_core::internal::*;

use crate::engine::{Graph, Map, Scratch, Segment};

thread_local! {
    /// Memory of the thread's segments, which run one after another.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
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
    /// None if this processor cannot run the kernel.
    pub(super) fn new(graph: &Graph, outputs: &[usize], kernel: &str) -> Option<Self> {
        let segment = Segment::new(graph, outputs, kernel)?;
        let output = |map: Map| Output {
            map,
            values: std::array::from_fn(|byte| map.scheme.dequantize(byte as u8)),
        };
        let outputs = segment.outputs().map(output).collect();
        Some(Self(Arc::new(Prepared { segment, outputs })))
    }
}

impl Output {
    fn shape(&self) -> [usize; 4] {
        let [height, width, channels] = self.map.shape();
        [1, channels, height, width]
    }

    /// A map's bytes, pixels of `pixel` bytes, as planes of values.
    fn planes(&self, bytes: &[u8], pixel: usize) -> TractResult<Tensor> {
        let plane = self.map.height * self.map.width;
        let mut tensor = Tensor::zero::<f32>(&self.shape())?;
        let mut view = tensor.try_as_plain_ram_mut()?;
        let values = view.as_slice_mut::<f32>()?;
        for (channel, values) in values.chunks_exact_mut(plane).enumerate() {
            let bytes = bytes[channel..].iter().step_by(pixel);
            for (value, &byte) in values.iter_mut().zip(bytes) {
                *value = self.values[usize::from(byte)];
            }
        }
        Ok(tensor)
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
        SCRATCH.with_borrow_mut(|scratch| {
            segment.run(image, scratch, |nth, bytes, pixel| {
                found.push(outputs[nth].planes(bytes, pixel));
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
        let mut tensor = Tensor::zero::<f32>(&[1, 3, self.side, self.side])?;
        let mut view = tensor.try_as_plain_ram_mut()?;
        let planes = view.as_slice_mut::<f32>()?;
        for (channel, plane) in planes.chunks_exact_mut(self.side * self.side).enumerate() {
            for (value, &byte) in plane.iter_mut().zip(image[channel..].iter().step_by(3)) {
                *value = self.values[usize::from(byte)];
            }
        }
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

fn check_image(inputs: &[&TypedFact], height: usize, width: usize) -> TractResult<()> {
    let wanted = u8::fact([1, height, width, 3]);
    ensure!(
        inputs.len() == 1 && inputs[0].compatible_with(&wanted),
        "an image {wanted:?} is wanted"
    );
    Ok(())
}
