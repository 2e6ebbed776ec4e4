//! Whether another thread sleeps. Linux tells; elsewhere each thread is said to, so that a test may
//! be too early, and then shows less than it could.

/// A thread of this process as the system knows it.
pub struct Thread {
    #[cfg(target_os = "linux")]
    folder: std::path::PathBuf,
}

impl Thread {
    pub fn current() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            folder: std::path::Path::new("/proc")
                .join(std::fs::read_link("/proc/thread-self").unwrap()),
        }
    }

    /// The one of that name, if it runs already; of a longer one Linux keeps 15 bytes.
    #[cfg(target_os = "linux")]
    pub fn named(name: &str) -> Option<Self> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let mut folders = tasks.filter_map(|task| Some(task.ok()?.path()));
        let is_it = |folder: &std::path::PathBuf| {
            std::fs::read_to_string(folder.join("comm")).is_ok_and(|found| found.trim_end() == name)
        };
        folders.find(is_it).map(|folder| Self { folder })
    }

    #[cfg(not(target_os = "linux"))]
    pub fn named(_: &str) -> Option<Self> {
        Some(Self {})
    }

    /// Whether it sleeps, and for longer than one does who meets another thread at a lock: the
    /// same sleep is seen time and again.
    pub fn is_asleep(&self) -> bool {
        let first = self.sleep();
        first.is_some()
            && (0..20).all(|_| {
                std::thread::yield_now();
                self.sleep() == first
            })
    }

    /// As the how manyth time it sleeps, if it does.
    #[cfg(target_os = "linux")]
    fn sleep(&self) -> Option<String> {
        let status = std::fs::read_to_string(self.folder.join("status")).ok()?;
        let field = |name| status.lines().find_map(|line: &str| line.strip_prefix(name));
        field("State:").filter(|state| state.trim_start().starts_with('S'))?;
        field("voluntary_ctxt_switches:").map(str::to_owned)
    }

    #[cfg(not(target_os = "linux"))]
    fn sleep(&self) -> Option<String> {
        Some(String::new())
    }
}
