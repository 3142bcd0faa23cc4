//! Models with something wrong in them.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Size;
use tract_onnx::pb::type_proto::Value as Type;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

/// Numbers that look random and are the same in each run (Marsaglia's xorshift).
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        let mut noise = Self(seed ^ 0x9e37_79b9_7f4a_7c15);
        // Small seeds differ in few bits.
        for _ in 0..8 {
            noise.next();
        }
        noise
    }

    pub fn next(&mut self) -> u64 {
        self.0 |= u64::from(self.0 == 0);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit.max(1)
    }

    pub fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }

    fn one_of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.below(N)]
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let at = self.below(all.len());
        all.get(at)
    }

    fn of_mut<'a, T>(&mut self, all: &'a mut [T]) -> Option<&'a mut T> {
        let at = self.below(all.len());
        all.get_mut(at)
    }

    /// A number beside `from`, or one that sizes seldom are.
    fn size(&mut self, from: i64) -> i64 {
        let near = [
            from.wrapping_add(1),
            from.wrapping_sub(1),
            from.wrapping_mul(2),
        ];
        let near = self.one_of(near);
        self.one_of([
            near,
            near,
            0,
            1,
            2,
            3,
            -1,
            255,
            1 << 20,
            1 << 42,
            i64::MAX,
            i64::MIN,
        ])
    }
}

type Change = fn(&mut GraphProto, &mut Noise) -> Option<()>;

/// What may go wrong in a graph.
const CHANGES: [Change; 14] = [
    order, twin, lose, rewire, rename, operator, attribute, stray, shape, data, floats, kind,
    value, input,
];

/// Changes one to three things in a model.
pub fn structure(model: &mut ModelProto, noise: &mut Noise) {
    for _ in 0..1 + noise.below(3) {
        if noise.below(30) == 0 {
            opset(model, noise);
        } else if let Some(graph) = &mut model.graph {
            let _ = noise.one_of(CHANGES)(graph, noise);
        }
    }
}

fn opset(model: &mut ModelProto, noise: &mut Noise) {
    match noise.of_mut(&mut model.opset_import) {
        Some(opset) if noise.below(3) > 0 => {
            opset.version = noise.one_of([-1, 0, 1, 9, 12, 19, 21, 1000]);
        }
        Some(opset) => opset.domain = "ai.onnx.ml".to_owned(),
        None => {}
    }
}

fn order(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let nodes = &mut graph.node;
    let (a, b) = (noise.below(nodes.len()), noise.below(nodes.len()));
    (a < nodes.len()).then(|| nodes.swap(a, b))
}

fn twin(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let node = noise.of(&graph.node)?.clone();
    let at = noise.below(graph.node.len());
    graph.node.insert(at, node);
    Some(())
}

fn lose(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let at = noise.below(graph.node.len() + graph.initializer.len());
    match at.checked_sub(graph.node.len()) {
        None => drop(graph.node.remove(at)),
        Some(at) if at < graph.initializer.len() => drop(graph.initializer.remove(at)),
        Some(_) => {}
    }
    Some(())
}

/// The name of some value; of none now and then.
fn name(graph: &GraphProto, noise: &mut Noise) -> Option<String> {
    let node = noise.of(&graph.node)?;
    let names = [
        noise.of(&node.output)?.as_str(),
        noise.of(&node.input)?.as_str(),
        noise.of(&graph.initializer)?.name.as_str(),
        noise.of(&graph.input)?.name.as_str(),
        ["", "nothing"][noise.below(2)],
    ];
    Some(noise.one_of(names).to_owned())
}

fn rewire(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let name = name(graph, noise)?;
    let inputs = &mut noise.of_mut(&mut graph.node)?.input;
    match noise.below(4) {
        0 => inputs.push(name),
        1 => drop(inputs.pop()),
        _ => *noise.of_mut(inputs)? = name,
    }
    Some(())
}

fn rename(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let name = name(graph, noise)?;
    match noise.below(3) {
        0 => *noise.of_mut(&mut graph.node)?.output.first_mut()? = name,
        1 => noise.of_mut(&mut graph.initializer)?.name = name,
        _ => noise.of_mut(&mut graph.output)?.name = name,
    }
    Some(())
}

fn operator(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let other = noise.of(&graph.node)?.op_type.clone();
    let others = [
        &*other,
        &*other,
        &*other,
        "Relu",
        "Clip",
        "Sigmoid",
        "Identity",
        "Flatten",
        "Reshape",
        "Expand",
        "Tile",
        "Pad",
        "Upsample",
        "ConstantOfShape",
        "GlobalAveragePool",
        "Concat",
        "MatMul",
        "Loop",
    ];
    noise.of_mut(&mut graph.node)?.op_type = noise.one_of(others).to_owned();
    Some(())
}

fn attribute(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let mut nodes: Vec<&mut NodeProto> = graph
        .node
        .iter_mut()
        .filter(|n| !n.attribute.is_empty())
        .collect();
    let attributes = &mut noise.of_mut(&mut nodes)?.attribute;
    if noise.below(8) == 0 {
        let at = noise.below(attributes.len());
        attributes.remove(at);
        return Some(());
    }
    let attribute = noise.of_mut(attributes)?;
    match noise.below(12) {
        0 => attribute.name.push('x'),
        1 => attribute.r#type = noise.below(12) as i32,
        2 => attribute.ints.push(noise.size(1)),
        3 => drop(attribute.ints.pop()),
        4 => {
            attribute.s = noise
                .one_of(["linear", "ceil", "half_pixel", "", "SAME_UPPER"])
                .into()
        }
        _ => match noise.of_mut(&mut attribute.ints) {
            Some(number) => *number = noise.size(*number),
            None => attribute.i = noise.size(attribute.i),
        },
    }
    Some(())
}

/// An attribute where none was.
fn stray(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let name = noise.one_of([
        "dilations",
        "group",
        "axis",
        "output_padding",
        "output_shape",
        "auto_pad",
        "pads",
        "block_size",
        "to",
    ]);
    let (a, b) = (noise.size(1), noise.size(1));
    let attribute = AttributeProto {
        name: name.to_owned(),
        i: a,
        ints: noise
            .one_of([&[][..], &[a], &[a, a], &[a, b], &[2, 2], &[a, b, a, b]])
            .to_vec(),
        s: noise.one_of(["SAME_UPPER", "VALID", "NOTSET"]).into(),
        r#type: noise.one_of([2, 3, 7, 7]),
        ..AttributeProto::default()
    };
    noise.of_mut(&mut graph.node)?.attribute.push(attribute);
    Some(())
}

/// Dimensions of a constant.
fn shape(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let dims = &mut noise.of_mut(&mut graph.initializer)?.dims;
    match noise.below(6) {
        0 => dims.push(noise.size(1)),
        1 => drop(dims.pop()),
        2 => dims.reverse(),
        _ => {
            let size = noise.of_mut(dims)?;
            *size = noise.size(*size);
        }
    }
    Some(())
}

fn data(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let data = &mut noise.of_mut(&mut graph.initializer)?.raw_data;
    let place = noise.below(data.len());
    match noise.below(5) {
        0 => data.truncate(place),
        1 => data.clear(),
        2 => data.extend_from_within(place..),
        3 => data.push(noise.byte()),
        _ => *data.get_mut(place)? = noise.byte(),
    }
    Some(())
}

fn of_kind(graph: &mut GraphProto, kind: DataType) -> Vec<&mut TensorProto> {
    let tensors = graph.initializer.iter_mut();
    tensors
        .filter(|tensor| tensor.data_type == kind as i32)
        .collect()
}

/// Scales and bounds.
fn floats(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let mut tensors = of_kind(graph, DataType::Float);
    let (values, _) = noise.of_mut(&mut tensors)?.raw_data.as_chunks_mut::<4>();
    let value = noise.of_mut(values)?;
    let from = f32::from_le_bytes(*value);
    let others = [
        f32::NAN,
        f32::INFINITY,
        0.0,
        -0.0,
        -from,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-42,
        1e30,
        from * 1.5,
        from / 3.0,
        from * 256.0,
    ];
    *value = noise.one_of(others).to_le_bytes();
    Some(())
}

/// The type of a constant.
fn kind(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let tensor = noise.of_mut(&mut graph.initializer)?;
    tensor.data_type = noise.below(17) as i32;
    if noise.below(3) == 0 {
        tensor.dims = noise.one_of([&[][..], &[1], &[0], &[1, 1], &[3]]).to_vec();
    }
    Some(())
}

/// A zero point or a weight.
fn value(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let kind = noise.one_of([DataType::Int8, DataType::Uint8, DataType::Int32]);
    let mut tensors = of_kind(graph, kind);
    let data = &mut noise.of_mut(&mut tensors)?.raw_data;
    *noise.of_mut(data)? = noise.byte();
    Some(())
}

/// What the model declares to read and to return.
fn input(graph: &mut GraphProto, noise: &mut Noise) -> Option<()> {
    let values = match noise.below(3) {
        0 => &mut graph.output,
        _ => &mut graph.input,
    };
    if noise.below(8) == 0 {
        let twin = noise.of(values)?.clone();
        values.push(twin);
        return Some(());
    }
    let ValueInfoProto { r#type, .. } = noise.of_mut(values)?;
    let Some(Type::TensorType(tensor)) = &mut r#type.as_mut()?.value else {
        return None;
    };
    if noise.below(8) == 0 {
        tensor.elem_type = noise.below(17) as i32;
        return Some(());
    }
    let dims = &mut tensor.shape.as_mut()?.dim;
    if noise.below(8) == 0 {
        dims.pop();
        return Some(());
    }
    let size = noise.one_of([
        0,
        1,
        2,
        7,
        9,
        12,
        18,
        33,
        -1,
        3000,
        1 << 20,
        1 << 42,
        i64::MAX,
    ]);
    // Height and width alike, mostly.
    let sides = match noise.below(3) {
        0 => 0..4,
        _ => 2..4,
    };
    let one = noise.below(8) == 0;
    for dim in dims
        .get_mut(sides)?
        .iter_mut()
        .take(if one { 1 } else { 4 })
    {
        dim.value = Some(Size::DimValue(size));
    }
    Some(())
}
