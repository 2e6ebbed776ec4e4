//! User code is called through here: its panics end here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs user code. `Err` has the panic's message if it panicked.
pub(crate) fn guarded(user_code: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(user_code)).map_err(message)
}

/// Reads a panic's payload and drops it, which may panic in its turn.
fn message(payload: Box<dyn Any + Send>) -> String {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "(a payload that is no text)".to_owned(),
    };
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Leaked: to drop it could go on like this for ever.
        std::mem::forget(second);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            std::panic::panic_any(Self);
        }
    }

    #[test]
    fn messages_are_read_whatever_the_payload() {
        assert_eq!(guarded(|| ()), Ok(()));
        assert_eq!(guarded(|| panic!("plain")), Err("plain".to_owned()));
        let number = 7;
        assert_eq!(guarded(|| panic!("number {number}")), Err("number 7".to_owned()));
        assert!(guarded(|| std::panic::panic_any(PanicsOnDrop)).is_err());
    }
}
