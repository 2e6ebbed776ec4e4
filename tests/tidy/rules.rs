//! The rules.

use crate::source::Source;

const MAX_FILE: usize = 700;
const MAX_FUNCTION: usize = 80;
const WIDTH: usize = 100;

/// What every station may use.
const BESIDE: &[&str] = &[
    "claims", "error", "event", "metrics", "planted", "random", "sync", "threads", "time", "types",
];

/// A module, what it may import, and whether that includes [`BESIDE`].
///
/// The formats are pure: bytes in, bytes out. `config` names `producer` because its builder's
/// `build` is the door to it.
const IMPORTS: &[(&str, bool, &[&str])] = &[
    ("record", false, &[]),
    ("protocol", false, &["error", "types"]),
    ("completion", true, &[]),
    ("transaction", true, &["completion", "protocol", "record"]),
    ("metadata", true, &["completion", "config", "protocol", "record"]),
    ("network", true, &["protocol"]),
    ("accumulator", true, &["completion", "metadata", "protocol", "record", "transaction"]),
    ("client", true, &["config", "metadata", "network", "protocol"]),
    ("sender", true, SENDER),
    ("producer", true, PRODUCER),
    ("testing", true, &["completion", "producer", "protocol", "record"]),
    ("sim", true, &[]), // tests only
    ("config", true, &["producer"]),
    ("claims", false, &[]),
    ("error", false, &["protocol", "types"]),
    ("event", false, &["protocol"]),
    ("metrics", false, &["claims", "sync", "time", "types"]),
    ("threads", false, &["error", "sync"]),
    ("planted", false, &[]),
    ("random", false, &[]),
    ("sync", false, &[]),
    ("time", false, &[]),
    ("types", false, &[]),
];

const SENDER: &[&str] = &[
    "accumulator",
    "client",
    "completion",
    "config",
    "metadata",
    "network",
    "protocol",
    "record",
    "transaction",
];

const PRODUCER: &[&str] = &[
    "accumulator",
    "client",
    "completion",
    "config",
    "metadata",
    "network",
    "protocol",
    "record",
    "sender",
    "transaction",
];

/// The module of `src` that a file belongs to.
fn module(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("src/")?;
    let first = inner.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first)).filter(|name| *name != "lib")
}

/// The import rules; they bind what is compiled for users, not tests.
pub fn imports(file: &Source) -> Vec<String> {
    let Some(module) = module(&file.path) else { return Vec::new() };
    let Some((_, beside, named)) = IMPORTS.iter().find(|(name, ..)| *name == module) else {
        return vec![format!("{}: tests/tidy/rules.rs gives `{module}` no imports", file.path)];
    };
    let allowed =
        |head: &str| head == module || named.contains(&head) || (*beside && BESIDE.contains(&head));
    let mut heads = file.heads_after("crate::");
    if file.path.ends_with("/mod.rs") && file.path.matches('/').count() == 2 {
        heads.extend(file.heads_after("super::"));
    }
    let wrong = heads.iter().filter(|(at, head)| !file.is_test(*at) && !allowed(head));
    wrong.map(|(at, head)| finding(file, *at, &format!("`{module}` imports `{head}`"))).collect()
}

/// Something that is called in one place only.
struct Ban {
    patterns: &'static [&'static str],
    /// Where it is at home: beginnings of paths.
    home: &'static [&'static str],
    /// The only paths that it is banned from; all of `src` if there are none.
    from: &'static [&'static str],
    /// Also in tests.
    in_tests: bool,
    instead: &'static str,
}

const BAN: Ban = Ban { patterns: &[], home: &[], from: &["src/"], in_tests: true, instead: "" };

const BANS: &[Ban] = &[
    Ban {
        patterns: &["Instant::now", "SystemTime::now", "SystemTime::UNIX_EPOCH", "clock_gettime"],
        home: &["src/time.rs"],
        instead: "`now` is an argument; crate::time reads the clocks",
        ..BAN
    },
    Ban {
        patterns: &["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "socket2"],
        home: &["src/network/", "src/testing/"],
        in_tests: false,
        instead: "sockets are made below crate::network::Net",
        ..BAN
    },
    Ban {
        patterns: &["mio"],
        home: &["src/network/mio_net.rs"],
        instead: "mio stands behind crate::network::Net",
        ..BAN
    },
    Ban {
        patterns: &["parking_lot"],
        home: &["src/sync.rs", "src/sim/condvar.rs"],
        instead: "locks come from crate::sync",
        ..BAN
    },
    Ban {
        patterns: &["crossbeam_channel"],
        home: &["src/sync.rs"],
        in_tests: false,
        instead: "channels come from crate::sync",
        ..BAN
    },
    Ban {
        patterns: &["thread::sleep", "sleep_ms", "park_timeout"],
        from: &["src/", "tests/"],
        // Other processes can only be polled; the storm's callbacks write to a slow database; and
        // a footprint is of a span of time.
        home: &[
            "tests/kafka_harness/",
            "tests/raw_requests/",
            "tests/real_kafka/",
            "tests/callbacks.rs",
            "tests/footprint/",
        ],
        instead: "wait for the event itself, with a deadline",
        ..BAN
    },
    Ban {
        patterns: &["thread::spawn", "thread::Builder"],
        home: &["src/threads.rs", "src/testing/"],
        in_tests: false,
        instead: "crate::threads::spawn_named: a name, and no signals",
        ..BAN
    },
    Ban {
        patterns: &["println!", "print!", "eprintln!", "eprint!", "io::stdout", "io::stderr"],
        // Figures and logs of long runs, which are asked for by hand.
        home: &["src/sim/tests.rs"],
        instead: "log",
        ..BAN
    },
    Ban {
        patterns: &["todo!", "unimplemented!", "dbg!"],
        from: &["src/", "tests/", "examples/", "benches/"],
        instead: "finish it",
        ..BAN
    },
    Ban {
        patterns: &[".unwrap()", ".unwrap_err()", ".expect", ".expect_err", "panic!"],
        // The test cluster is for tests; where it can't start it says so by a panic.
        home: &["src/testing/"],
        in_tests: false,
        instead: "broker bytes and user input give errors; our own claims are debug_assert!",
        ..BAN
    },
    Ban {
        patterns: &["HashMap", "HashSet"],
        from: &["src/sender/", "src/client/", "src/network/", "src/transaction/", "src/metadata/"],
        in_tests: false,
        instead: "BTreeMap or Vec: the sender's side is deterministic",
        ..BAN
    },
    Ban {
        patterns: &["async", "await"],
        from: &["src/", "tests/", "examples/", "benches/"],
        instead: "threads; this crate exists for them",
        ..BAN
    },
];

/// Calls and names that have one home.
pub fn banned(file: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let below = |paths: &[&str]| paths.iter().any(|path| file.path.starts_with(path));
    for ban in BANS.iter().filter(|ban| below(ban.from) && !below(ban.home)) {
        for pattern in ban.patterns {
            let found = file.find(pattern).into_iter();
            let found = found.filter(|at| ban.in_tests || !file.is_test(*at));
            let message = format!("`{pattern}`; instead: {}", ban.instead);
            findings.extend(found.map(|at| finding(file, at, &message)));
        }
    }
    if below(&["src/"]) && !below(&["src/sync"]) {
        let heads = file.heads_after("std::sync::").into_iter();
        let is_modelled = |(at, head): &(usize, &str)| match *head {
            "Mutex" | "RwLock" | "Condvar" => true,
            // The model checker does not see them: fine for tests and where nothing races.
            "OnceLock" | "atomic" => !file.is_test(*at) && !below(ATOMICS_OF_STD),
            _ => false,
        };
        let message = "std's own; instead: crate::sync";
        findings.extend(heads.filter(is_modelled).map(|(at, _)| finding(file, at, message)));
    }
    findings
}

/// Clocks, a static counter of names, and the test cluster.
const ATOMICS_OF_STD: &[&str] = &["src/time.rs", "src/producer/build.rs", "src/testing/"];

/// Lengths of files, functions and lines.
pub fn sizes(file: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = file.text.lines().count();
    if lines > MAX_FILE && file.path.ends_with(".rs") {
        findings.push(format!("{}: {lines} lines, at most {MAX_FILE}", file.path));
    }
    for function in file.functions().iter().filter(|f| f.lines > MAX_FUNCTION) {
        let (name, line, lines) = (function.name, function.line, function.lines);
        let path = &file.path;
        findings.push(format!("{path}:{line}: `{name}` has {lines} lines, at most {MAX_FUNCTION}"));
    }
    for (index, line) in file.text.lines().enumerate() {
        let width = line.chars().count();
        if width > WIDTH {
            findings.push(format!("{}:{}: {width} columns, at most {WIDTH}", file.path, index + 1));
        }
    }
    findings
}

/// A file opens with a few lines about what it owns. Parts of a module's tests need none.
pub fn opening(file: &Source) -> Vec<String> {
    let exempt = !file.path.ends_with(".rs")
        || (file.path.starts_with("src/") && file.is_test(0))
        || file.text.starts_with("//! ");
    if exempt { Vec::new() } else { vec![format!("{}: opens without `//!`", file.path)] }
}

/// No path of somebody's machine, no note to oneself.
pub fn workplace(file: &Source) -> Vec<String> {
    let folders = ["home", "root", "Users", "mnt", "srv", "work", "workspace"];
    let notes = ["TO", "FIX"].map(|note| note.to_owned() + if note == "TO" { "DO" } else { "ME" });
    let patterns = folders.map(|folder| format!("/{folder}/")).into_iter().chain(notes);
    let mut findings = Vec::new();
    for pattern in patterns {
        for (at, _) in file.text.match_indices(&pattern) {
            // A folder of the project may have such a name: an absolute path follows no other.
            let absolute = !file.text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.');
            if absolute {
                findings.push(format!("{}: `{pattern}`", file.path));
            }
        }
    }
    findings
}

fn finding(file: &Source, at: usize, message: &str) -> String {
    format!("{}:{}: {message}", file.path, file.line_of(at))
}

mod samples {
    use super::*;

    type Rule = fn(&Source) -> Vec<String>;

    fn count(rule: Rule, path: &str, text: &str) -> usize {
        rule(&Source::new(path, text)).len()
    }

    #[test]
    fn a_forbidden_import_is_caught() {
        let bad = [
            ("src/record/batch.rs", "use crate::error::Error;"),
            ("src/protocol/wire.rs", "use crate::{types::Uuid, network::Net};"),
            ("src/completion/future.rs", "use crate::sender::Sender;"),
            ("src/network/selector.rs", "fn f() { crate::client::g() }"),
            ("src/client/mod.rs", "use super::sender::Sender;"),
            ("src/metadata/cell.rs", "use crate::Error;"),
            ("src/sender/mod.rs", "use crate::producer::KafkaProducer;"),
            ("src/time.rs", "use crate::sync::Arc;"),
            ("src/unheard_of/mod.rs", ""),
        ];
        for (path, text) in bad {
            assert_eq!(count(imports, path, text), 1, "{path}: {text}");
        }
        let good = [
            ("src/protocol/wire.rs", "use crate::types::Uuid; use super::header::Header;"),
            ("src/client/events.rs", "use super::requests::Request; use crate::network::Net;"),
            ("src/record/batch.rs", "#[cfg(test)] mod tests { use crate::error::Error; }"),
            ("src/record/batch.rs", "/// As [`crate::sender`] does.\nfn f() {}"),
            ("src/lib.rs", "pub use crate::error::Error;"),
            ("tests/x.rs", "use crate::anything;"),
        ];
        for (path, text) in good {
            assert_eq!(count(imports, path, text), 0, "{path}: {text}");
        }
    }

    #[test]
    fn every_ban_catches_each_of_its_patterns() {
        for ban in BANS {
            for pattern in ban.patterns {
                let text = format!("fn f() {{ x {pattern} y }}");
                for from in ban.from {
                    let found = count(banned, &format!("{from}bad.rs"), &text);
                    assert_eq!(found, 1, "`{pattern}` in {from}");
                    let hidden = format!("// {pattern}\nconst S: &str = \"{pattern}\";");
                    assert_eq!(count(banned, &format!("{from}good.rs"), &hidden), 0, "{pattern}");
                    let test = format!("#[cfg(test)] mod tests {{ {text} }}");
                    let found = count(banned, &format!("{from}bad.rs"), &test);
                    assert_eq!(found, usize::from(ban.in_tests), "`{pattern}` in a test");
                }
                for home in ban.home {
                    let left = banned(&Source::new(home, &text));
                    assert!(!left.iter().any(|f| f.contains(pattern)), "{home}: {left:?}");
                }
            }
        }
    }

    #[test]
    fn longer_names_are_not_taken_for_banned_ones() {
        let text = "fn f() { let mio_net = asynchronous; x.expect_header(); dimio::g(); }";
        assert_eq!(count(banned, "src/sender/mod.rs", text), 0);
    }

    #[test]
    fn locks_of_std_are_caught_and_the_rest_of_its_module_is_not() {
        let bad = "use std::sync::{Arc, Mutex}; static C: std::sync::Condvar = x;";
        assert_eq!(count(banned, "src/sender/mod.rs", bad), 2);
        let unseen = "use std::sync::atomic::AtomicBool; static C: std::sync::OnceLock<u8> = x;";
        assert_eq!(count(banned, "src/sender/mod.rs", unseen), 2);
        assert_eq!(count(banned, "src/time.rs", unseen), 0);
        let good = "use std::sync::{Arc, mpsc}; use crate::sync::{Mutex, atomic::AtomicBool};";
        assert_eq!(count(banned, "src/sender/mod.rs", good), 0);
    }

    #[test]
    fn what_is_too_long_is_caught() {
        let function = |lines: usize| format!("fn f() {{{}}}\n", "\n".repeat(lines - 1));
        assert_eq!(count(sizes, "src/x.rs", &function(MAX_FUNCTION)), 0);
        assert_eq!(count(sizes, "src/x.rs", &function(MAX_FUNCTION + 1)), 1);
        assert_eq!(count(sizes, "src/x.rs", &"\n".repeat(MAX_FILE)), 0);
        assert_eq!(count(sizes, "src/x.rs", &"\n".repeat(MAX_FILE + 1)), 1);
        assert_eq!(count(sizes, "README.md", &"\u{e9}".repeat(WIDTH)), 0);
        assert_eq!(count(sizes, "README.md", &"\u{e9}".repeat(WIDTH + 1)), 1);
    }

    #[test]
    fn a_file_without_an_opening_is_caught() {
        assert_eq!(count(opening, "src/x.rs", "use std::io;"), 1);
        assert_eq!(count(opening, "src/x.rs", "//! What x owns.\n"), 0);
    }

    #[test]
    fn a_path_of_a_machine_is_caught() {
        let path = ["", "home", "somebody", "x"].join("/");
        assert_eq!(count(workplace, "README.md", &format!("see {path}")), 1);
        assert_eq!(count(workplace, "README.md", &format!("see src{path}")), 0);
        let note = format!("// {}{}", "TO", "DO: later");
        assert_eq!(count(workplace, "src/x.rs", &note), 1);
    }
}
