//! A module's tensors by name: what checkpoints hold and what export reads.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData, backend::Backend};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorView, serialize};

use crate::files::replace;

/// Bytes that a header may take at most, as `safetensors` has it.
const MAX_HEADER: u64 = 100_000_000;

/// Float tensors by dotted path, such as `encoder.blocks.3.expand.weight`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Params(pub(crate) BTreeMap<String, TensorData>);

/// Why tensors could not be read, written or applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParamError {
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: not a safetensors file: {source}")]
    Format {
        path: PathBuf,
        source: SafeTensorError,
    },
    #[error("{path}: tensor `{name}` is {dtype:?}, expected F32")]
    Dtype {
        path: PathBuf,
        name: String,
        dtype: Dtype,
    },
    #[error("tensor `{0}` is missing")]
    Missing(String),
    #[error("tensor `{name}` has shape {found:?}, the network needs {needed:?}")]
    Shape {
        name: String,
        found: Vec<usize>,
        needed: Vec<usize>,
    },
}

impl Params {
    /// Reads a safetensors file of f32 tensors.
    pub(crate) fn load(path: &Path) -> Result<Self, ParamError> {
        let io = |source| io_error(path, source);
        let format = |source| format_error(path, source);
        let bytes = std::fs::read(path).map_err(io)?;
        let file = SafeTensors::deserialize(&bytes).map_err(format)?;
        let mut params = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                let (path, name) = (path.to_owned(), name.to_owned());
                return Err(ParamError::Dtype {
                    path,
                    name,
                    dtype: view.dtype(),
                });
            }
            let (words, _) = view.data().as_chunks::<4>();
            let values = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
            params.insert(
                name.to_owned(),
                TensorData::new::<f32, _>(values, view.shape().to_vec()),
            );
        }
        Ok(Self(params))
    }

    /// Reads the notes in a safetensors file's header, and none of its tensors.
    ///
    /// # Errors
    /// If it is no such file, or is not as long as its header says.
    pub(crate) fn notes(path: &Path) -> Result<HashMap<String, String>, ParamError> {
        let io = |source| io_error(path, source);
        let format = |source| format_error(path, source);
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut prefix = [0; 8];
        let body = (length.checked_sub(prefix.len() as u64))
            .ok_or_else(|| format(SafeTensorError::HeaderTooSmall))?;
        file.read_exact(&mut prefix).map_err(io)?;
        let size = u64::from_le_bytes(prefix);
        if size > body.min(MAX_HEADER) {
            return Err(format(SafeTensorError::InvalidHeaderLength));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| format(SafeTensorError::InvalidHeaderDeserialization(error)))?;
        if header.data_len() as u64 != body - size {
            return Err(format(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(header.metadata().clone().unwrap_or_default())
    }

    /// The values of a tensor.
    ///
    /// # Panics
    /// If there is none of that name.
    pub(crate) fn values(&self, name: &str) -> Vec<f32> {
        self.0[name].iter::<f32>().collect()
    }

    /// The tensors whose names fulfil a condition.
    pub(crate) fn filter(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(name, _)| keep(name));
        Self(
            kept.map(|(name, data)| (name.clone(), data.clone()))
                .collect(),
        )
    }

    /// A tensor that holds infinities or no numbers, if one does.
    pub(crate) fn not_finite(&self) -> Option<&str> {
        let finite = |data: &TensorData| data.iter::<f32>().all(f32::is_finite);
        let mut damaged = self.0.iter().filter(|(_, data)| !finite(data));
        damaged.next().map(|(name, _)| name.as_str())
    }

    /// Changes each value of a tensor, by index.
    ///
    /// # Panics
    /// If there is none of that name.
    pub(crate) fn set(&mut self, name: &str, mut change: impl FnMut(usize, &mut f32)) {
        let mut values = self.values(name);
        values
            .iter_mut()
            .enumerate()
            .for_each(|(i, value)| change(i, value));
        let shape = self.0[name].shape.to_vec();
        self.0
            .insert(name.to_owned(), TensorData::new(values, shape));
    }

    /// Writes a safetensors file, whole or not at all, with `notes` in its header.
    pub(crate) fn save(
        &self,
        path: &Path,
        notes: HashMap<String, String>,
    ) -> Result<(), ParamError> {
        let io = |source| io_error(path, source);
        let format = |source| format_error(path, source);
        let bytes: Vec<(&String, Vec<u8>, Vec<usize>)> = self
            .0
            .iter()
            .map(|(name, data)| {
                let bytes = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
                (name, bytes, data.shape.to_vec())
            })
            .collect();
        let views = bytes
            .iter()
            .map(|(name, bytes, shape)| {
                Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(format)?;
        let file = serialize(views, Some(notes)).map_err(format)?;
        replace(path, &file).map_err(io)
    }
}

fn io_error(path: &Path, source: std::io::Error) -> ParamError {
    let path = path.to_owned();
    ParamError::Io { path, source }
}

fn format_error(path: &Path, source: SafeTensorError) -> ParamError {
    let path = path.to_owned();
    ParamError::Format { path, source }
}

/// All float tensors of a module, running statistics included.
pub(crate) fn collect<B: Backend>(module: &impl Module<B>) -> Params {
    let mut collector = Collector::default();
    module.visit(&mut collector);
    collector.params
}

/// Gives the module the tensors of the same names; each must be there in the right shape.
pub(crate) fn apply<B: Backend, M: Module<B>>(module: M, params: &Params) -> Result<M, ParamError> {
    let mut applier = Applier {
        params,
        path: Vec::new(),
        failed: None,
    };
    let module = module.map(&mut applier);
    applier.failed.map_or(Ok(module), Err)
}

#[derive(Default)]
struct Collector {
    params: Params,
    path: Vec<String>,
}

impl<B: Backend> ModuleVisitor<B> for Collector {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.params.0.insert(
            self.path.join("."),
            param.val().into_data().convert::<f32>(),
        );
    }

    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

struct Applier<'a> {
    params: &'a Params,
    path: Vec<String>,
    failed: Option<ParamError>,
}

impl Applier<'_> {
    fn find(&self, shape: Vec<usize>) -> Result<TensorData, ParamError> {
        let name = self.path.join(".");
        match self.params.0.get(&name) {
            None => Err(ParamError::Missing(name)),
            Some(data) if data.shape.to_vec() != shape => Err(ParamError::Shape {
                name,
                found: data.shape.to_vec(),
                needed: shape,
            }),
            Some(data) => Ok(data.clone()),
        }
    }
}

impl<B: Backend> ModuleMapper<B> for Applier<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match self.find(param.val().dims().to_vec()) {
            Ok(data) => param.map(|old| {
                let grad = old.is_require_grad();
                Tensor::from_data(data, &old.device()).set_require_grad(grad)
            }),
            Err(error) => {
                self.failed.get_or_insert(error);
                param
            }
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
    use burn_flex::{Flex, FlexDevice};

    use super::*;
    use crate::nn::Gate;

    #[test]
    fn a_file_gives_back_every_tensor() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("gate.safetensors");
        let params = collect(&Gate::<Flex>::new(0.35, &FlexDevice));
        params.save(&file, HashMap::new()).expect("saves");
        assert_eq!(Params::load(&file).expect("loads"), params);

        let other = Gate::<Flex>::new(0.35, &FlexDevice);
        assert_ne!(collect(&other), params, "two random starts differ");
        let other = apply(other, &params).expect("fits");
        assert_eq!(collect(&other), params);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let gate = || Gate::<Flex>::new(0.35, &FlexDevice);
        let mut params = collect(&gate());
        let wide = collect(&Gate::<Flex>::new(1.0, &FlexDevice));
        let error = apply(gate(), &wide).expect_err("another width").to_string();
        assert!(error.contains("shape"), "{error}");
        params.0.remove("head.weight");
        let error = apply(gate(), &params).expect_err("a hole").to_string();
        assert!(error.contains("head.weight"), "{error}");
    }

    #[test]
    fn notes_are_read_without_the_tensors_and_miss_none_of_them() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("x.safetensors");
        let notes = HashMap::from([("key".to_owned(), "a \"word\"\n".to_owned())]);
        let params = Params([("x".to_owned(), [1f32, 2.0].into())].into());
        params.save(&file, notes.clone()).expect("saves");
        assert_eq!(Params::notes(&file).expect("reads"), notes);
        let whole = std::fs::read(&file).expect("reads");
        // Whatever the tensors hold.
        let other = [&whole[..whole.len() - 8], &[0xff; 8]].concat();
        std::fs::write(&file, other).expect("writes");
        assert_eq!(Params::notes(&file).expect("reads"), notes);
        let longer = [&whole[..], b"x"].concat();
        for damaged in [&whole[..whole.len() - 1], &whole[..20], b"short", &longer] {
            std::fs::write(&file, damaged).expect("writes");
            let error = Params::notes(&file).expect_err("damaged").to_string();
            assert!(error.contains("x.safetensors: not a"), "{error}");
        }
        params.save(&file, HashMap::new()).expect("saves");
        assert_eq!(Params::notes(&file).expect("reads"), HashMap::new());
    }

    #[test]
    fn a_file_of_something_else_is_an_error() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("x.safetensors");
        // By its first eight bytes the second has a header of 10^18 bytes that is not there.
        let huge = 1_000_000_000_000_000_000u64.to_le_bytes();
        for bytes in [&b"not tensors at all"[..], &[&huge[..], b"{}"].concat()] {
            std::fs::write(&file, bytes).expect("writes");
            for error in [Params::load(&file).err(), Params::notes(&file).err()] {
                let error = error.expect("no tensors").to_string();
                assert!(error.contains("x.safetensors"), "{error}");
            }
        }
    }
}
