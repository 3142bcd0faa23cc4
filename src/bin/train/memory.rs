//! Memory that stays with the process.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where glibc reads how its allocator shall behave, once, when a program starts.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// No mapping of its own for a large block, nothing handed back, huge pages where the kernel has
/// them: a training step takes and frees the same large blocks each time, and to have the kernel
/// clear them anew costs it a third of its time.
const TUNABLES: &str = "glibc.malloc.mmap_max=0:\
    glibc.malloc.trim_threshold=1099511627776:\
    glibc.malloc.hugetlb=1";

/// Starts this program anew, as the same process, with an allocator that keeps its memory, unless
/// somebody has set it up already. Other C libraries ignore it.
pub(crate) fn keep() {
    if env::var_os(VARIABLE).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else {
        return;
    };
    let error = Command::new(program)
        .args(env::args_os().skip(1))
        .env(VARIABLE, TUNABLES)
        .exec();
    log::debug!("going on with the allocator as it is: {error}");
}
