//! Panics of other people's code on malformed input, turned into errors.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

use log::debug;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; `None` if it panicked. What `work` changed meanwhile must not be looked at then.
pub(crate) fn contain<T>(work: impl FnOnce() -> T) -> Option<T> {
    let outer = CONTAINED.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(outer);
    outcome.ok()
}

/// Lets a program report panics only where nothing contains them; of the others, whose errors tell
/// enough, the place is logged at debug level.
pub fn report_only_uncontained() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if CONTAINED.get() {
            debug!("{panic}");
        } else {
            report(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_goes_no_further_and_leaves_no_trace() {
        assert_eq!(contain(|| 7), Some(7));
        let nested = contain(|| (contain(|| panic!("inside")), CONTAINED.get()));
        assert_eq!(nested, Some((None::<()>, true)));
        assert!(!CONTAINED.get(), "the next panic is reported again");
    }
}
