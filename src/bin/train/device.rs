//! Which processor trains: found out by asking the driver, never by a panic.

use anyhow::Result;
use clap::ValueEnum;

use crate::trainer::Engine;

/// Work for whichever back end is there.
pub(crate) trait Job {
    /// What comes of it.
    type Output;

    /// Does the work.
    fn on<B: Engine>(self) -> Result<Self::Output>;
}

/// What `--device` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceChoice {
    /// CUDA where it works, else the CPU.
    Auto,
    /// CUDA, or an error that says what is missing.
    Cuda,
    /// The CPU.
    Cpu,
}

impl DeviceChoice {
    /// Does the work on the processor that was asked for.
    ///
    /// # Errors
    /// If that is not usable, or the work fails.
    pub(crate) fn run<J: Job>(self, job: J) -> Result<J::Output> {
        match use_cuda(self)? {
            #[cfg(feature = "cuda")]
            true => job.on::<burn::backend::Cuda>(),
            _ => job.on::<burn_flex::Flex>(),
        }
    }
}

/// Whether to train on CUDA.
///
/// # Errors
/// If CUDA was asked for by name and is not usable; the message says why.
fn use_cuda(choice: DeviceChoice) -> Result<bool> {
    match choice {
        DeviceChoice::Cpu => Ok(false),
        DeviceChoice::Auto => Ok(probe()
            .inspect_err(|why| log::info!("no CUDA: {why}"))
            .is_ok()),
        DeviceChoice::Cuda => match probe() {
            Ok(()) => Ok(true),
            Err(why) => anyhow::bail!("--device cuda: {why}"),
        },
    }
}

#[cfg(not(feature = "cuda"))]
fn probe() -> Result<(), String> {
    Err("this binary was built without it (cargo build --release --features cuda)".to_owned())
}

/// Asks the driver for devices, and looks for the run-time compiler that burn's kernels need.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
fn probe() -> Result<(), String> {
    use libloading::{Library, Symbol};

    let open = |names: &[&'static str]| {
        names.iter().find_map(|&name| {
            // SAFETY: loading runs the library's initialisers; these are NVIDIA's own, which burn's
            // CUDA back end is about to run in the same way.
            unsafe { Library::new(name) }.ok()
        })
    };
    let driver = open(&["libcuda.so.1", "libcuda.so"])
        .ok_or("libcuda.so.1 is not there: install the NVIDIA driver")?;
    let mut count = 0i32;
    // SAFETY: the signatures are those of cuda.h: CUresult cuInit(unsigned) and
    // CUresult cuDeviceGetCount(int *); `count` outlives the call that writes it.
    let (init, counted) = unsafe {
        let init: Symbol<unsafe extern "C" fn(u32) -> i32> =
            driver.get(b"cuInit\0").map_err(|e| e.to_string())?;
        let device_count: Symbol<unsafe extern "C" fn(*mut i32) -> i32> = driver
            .get(b"cuDeviceGetCount\0")
            .map_err(|e| e.to_string())?;
        (init(0), device_count(&mut count))
    };
    match (init, counted, count) {
        (0, 0, 1..) => {}
        (0, 0, _) => return Err("the driver sees no GPU".to_owned()),
        (init, counted, _) => {
            return Err(format!(
                "the driver refuses: cuInit {init}, cuDeviceGetCount {counted}"
            ));
        }
    }
    open(&["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"])
        .map(|_| ())
        .ok_or_else(|| "libnvrtc is not there: install the CUDA toolkit".to_owned())
}

/// Whether tests have a GPU to run on; says so if not.
#[cfg(all(test, feature = "cuda"))]
pub(crate) fn is_there() -> bool {
    let probed = probe();
    if let Err(why) = &probed {
        println!("SKIPPED: no CUDA: {why}");
    }
    probed.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_never_asks_for_cuda_and_auto_never_fails() {
        assert!(!use_cuda(DeviceChoice::Cpu).expect("cpu works everywhere"));
        use_cuda(DeviceChoice::Auto).expect("auto falls back");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_by_name_says_what_is_missing() {
        let error = use_cuda(DeviceChoice::Cuda).expect_err("built without");
        assert!(error.to_string().contains("--features cuda"), "{error}");
    }
}
