//! ImageNet weights under Keras's layer names.

use std::path::Path;

use crate::nn::params::{ParamError, Params};

/// Reads a safetensors file with the names of Keras's MobileNetV2: a `.weight` for each convolution
/// and, for each batch norm, `.weight`, `.bias`, `.running_mean` and `.running_var`, or the
/// convolution's `.bias` where they are folded. The tensors come out under the gate's own names, a
/// folded bias as the norm's shift; those of unknown layers keep theirs.
pub(super) fn load(path: &Path) -> Result<Params, ParamError> {
    let file = Params::load(path)?;
    let named = file.0.into_iter().map(|(name, data)| {
        let own = own_name(&name).unwrap_or(name);
        (own, data)
    });
    Ok(Params(named.collect()))
}

/// The gate's name for one of Keras's tensors.
fn own_name(name: &str) -> Option<String> {
    let (layer, tensor) = name.rsplit_once('.')?;
    let (conv, norm) = match layer {
        "bn_Conv1" => ("Conv1", true),
        "Conv_1_bn" => ("Conv_1", true),
        _ => match layer.strip_suffix("_BN") {
            Some(conv) => (conv, true),
            None => (layer, false),
        },
    };
    let place = match conv {
        "Conv1" => "encoder.stem".to_owned(),
        "Conv_1" => "head".to_owned(),
        _ => match conv.strip_prefix("expanded_conv_") {
            Some(part) => format!("encoder.blocks.0.{part}"),
            None => {
                let (index, part) = conv.strip_prefix("block_")?.split_once('_')?;
                format!("encoder.blocks.{index}.{part}")
            }
        },
    };
    let tensor = match (norm, tensor) {
        (false, "weight") => "weight",
        (true, "weight") => "bn.gamma",
        (_, "bias") => "bn.beta",
        (true, "running_mean") => "bn.running_mean",
        (true, "running_var") => "bn.running_var",
        _ => return None,
    };
    Some(format!("{place}.{tensor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_go_where_the_gate_has_them() {
        for (keras, own) in [
            ("Conv1.weight", "encoder.stem.weight"),
            ("bn_Conv1.running_var", "encoder.stem.bn.running_var"),
            (
                "expanded_conv_depthwise.bias",
                "encoder.blocks.0.depthwise.bn.beta",
            ),
            (
                "block_13_expand_BN.weight",
                "encoder.blocks.13.expand.bn.gamma",
            ),
            ("Conv_1_bn.bias", "head.bn.beta"),
        ] {
            assert_eq!(own_name(keras).as_deref(), Some(own));
        }
        for strange in ["unrelated", "block_x", "predictions.weight"] {
            assert_eq!(own_name(strange), None);
        }
    }
}
