//! A bar on stderr while long work goes on; nothing where stderr is no terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how much is done. Cheap to update: the terminal is written to some times a second.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new(total: u64, what: &'static str) -> Self {
        // A terminal only: a hidden bar is drawn nowhere.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len}")
        {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self(bar)
    }

    /// Whether anybody sees it.
    pub fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }

    /// Hides the bar while something else is printed.
    pub fn suspend(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    pub fn add(&self, done: u64) {
        self.0.inc(done);
    }
}

/// No bar.
impl Default for Progress {
    fn default() -> Self {
        Self(ProgressBar::hidden())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
