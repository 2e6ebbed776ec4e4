//! Whether what the crate claims of its own state is looked at: in debug builds, until the thread
//! gives up.

use std::cell::Cell;

thread_local! {
    static GIVEN_UP: Cell<bool> = const { Cell::new(false) };
}

/// Whether `invariants` look. Never in release builds.
pub(crate) fn are_checked() -> bool {
    cfg!(debug_assertions) && !GIVEN_UP.get()
}

/// A claim was broken, and this thread ends for it: all that it has yet to do is to tell everybody,
/// which the same claim must not prevent.
pub(crate) fn give_up() {
    GIVEN_UP.set(true);
}
