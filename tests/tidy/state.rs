//! The check that every struct that keeps state says what must hold of it: it has `invariants`, or
//! a reason to have none.

use crate::source::{Source, item_end, name_at};

/// What of the crate is looked at: not what stands in for brokers and worlds, nor settings.
const LEFT_OUT: &[&str] =
    &["src/sim/", "src/testing/", "src/config/", "src/sync", "src/client/fed.rs"];

/// Structs without `invariants`, and why.
pub const WITHOUT: &[(&str, &str)] = &[
    // Of others, which look at them.
    ("State", "in buffer_pool.rs: the pool's"),
    ("EndingState", "`Ended`'s"),
    ("TopicMetadata", "`Cluster`'s"),
    ("Tracked", "`Metadata`'s"),
    ("ReadyWait", "its `Bounds`'"),
    ("Sticky", "its `Choices`'"),
    ("ThreadResolver", "its `State`'s"),
    ("Histogram", "its `Samples`'"),
    ("Counts", "`Samples`'"),
    ("Sensors", "of what is counted twice: `Sending`'s"),
    ("SharedSensors", "a lock"),
    ("SpanSensors", "its statistics'"),
    ("TrafficSensors", "its statistics'"),
    // With nothing to claim.
    ("Core", "holds what others own, and two cells that are set once"),
    ("Guests", "two things that are dropped"),
    ("LogRelay", "its mark and its channel may disagree for a moment, on purpose"),
    ("ManualClock", "a number"),
    ("PurgeOrder", "a number"),
    ("Random", "a number, any"),
    ("Traffic", "numbers of different spans"),
    ("Waiting", "a number"),
    // For one call.
    ("Matcher", "a search"),
    ("ProduceRequestEncoder", "an encoder"),
    ("Reader", "a decoder"),
    ("Records", "a decoder"),
    ("Writer", "an encoder"),
    // The user's.
    ("Headers", "a list"),
    ("KafkaProducer", "a handle"),
    ("ProducerRecord", "a value"),
    ("TopicProducer", "a handle"),
];

/// Where something stands: the file, its folder, and the position.
type Place<'a> = (&'a Source, &'a str, usize);

/// Structs that keep state and don't say what must hold, and reasons that are not needed.
pub fn findings(files: &[Source], without: &[(&str, &str)]) -> Vec<String> {
    let looked_at = |file: &&Source| {
        file.path.starts_with("src/") && !LEFT_OUT.iter().any(|path| file.path.starts_with(path))
    };
    let files: Vec<_> = files.iter().filter(looked_at).collect();
    let structs: Vec<_> = files.iter().flat_map(|file| structs_of(file)).collect();
    let claims: Vec<_> = files.iter().flat_map(|file| facts_of(file)).collect();
    // One of the same name may be in another folder, or in another file with its own facts.
    let knows = |(file, folder, _): &Place<'_>, name: &str, fact: &Fact<'_>| {
        let (other, its, _) = fact.place;
        let is_other = || structs.iter().any(|((o, ..), n, _)| o.path == other.path && *n == name);
        fact.name == name && its == *folder && (other.path == file.path || !is_other())
    };
    let lacking: Vec<_> = structs
        .iter()
        .filter(|(place, name, is_shared)| {
            let its = || claims.iter().filter(|fact| knows(place, name, fact));
            (*is_shared || its().any(|fact| fact.changes)) && !its().any(|fact| fact.claims)
        })
        .collect();
    let unexcused = lacking.iter().filter(|(_, name, _)| !without.iter().any(|(w, _)| w == name));
    let missing = unexcused.map(|((file, _, at), name, _)| {
        format!("{}:{}: `{name}` has no `invariants`", file.path, file.line_of(*at))
    });
    let stale = without.iter().filter(|(w, _)| !lacking.iter().any(|(_, name, _)| name == w));
    missing.chain(stale.map(|(name, _)| format!("`{name}` needs no reason"))).collect()
}

/// The structs of a file, and whether they can be changed without `&mut`. What a lock is around
/// counts, not what has the lock.
fn structs_of(file: &Source) -> Vec<(Place<'_>, &str, bool)> {
    let at = file.find("struct ").into_iter().filter(|at| !file.is_test(*at));
    at.filter_map(|at| {
        let item = &file.code[at..];
        let item = &item["struct ".len()..item_end(item)?];
        let is_shared = ["Atomic", "OnceLock<", "Cell<"].iter().any(|kind| item.contains(kind));
        Some(((file, folder(file), at), name_at(item), is_shared))
    })
    .collect()
}

fn folder(file: &Source) -> &str {
    file.path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// What a place in a file says of a struct.
struct Fact<'a> {
    place: Place<'a>,
    name: &'a str,
    /// It can be changed.
    changes: bool,
    /// It has `invariants`.
    claims: bool,
}

fn facts_of(file: &Source) -> Vec<Fact<'_>> {
    let mut facts = Vec::new();
    for lock in ["Mutex<", "UnmodelledMutex<", "RwLock<"] {
        for at in file.find(lock).into_iter().filter(|at| !file.is_test(*at)) {
            let (place, name) = ((file, folder(file), at), name_at(&file.code[at + lock.len()..]));
            facts.push(Fact { place, name, changes: true, claims: false });
        }
    }
    for at in file.find("impl") {
        let item = &file.code[at..];
        let Some((head, block)) = item_end(item).and_then(|end| item[..end].split_once('{')) else {
            continue;
        };
        let ((name, is_drop), place) = (subject(head), (file, folder(file), at));
        let changes = block.contains("&mut self") && !is_drop && !file.is_test(at);
        facts.push(Fact { place, name, changes, claims: block.contains("fn invariants") });
    }
    facts
}

/// Of which type an `impl` is, and whether it is of `Drop`, which all guards have.
fn subject(head: &str) -> (&str, bool) {
    let rest = &head["impl".len()..];
    let rest = if rest.starts_with('<') { &rest[generics_end(rest)..] } else { rest };
    let (of, subject) = rest.split_once(" for ").unwrap_or(("", rest));
    let subject = name_at(subject.trim_start());
    (subject, of.trim() == "Drop")
}

/// Where the angle brackets close that `code` begins with; an arrow closes none.
fn generics_end(code: &str) -> usize {
    let mut depth = 0;
    let mut before = ' ';
    for (at, c) in code.char_indices() {
        depth += i32::from(c == '<') - i32::from(c == '>' && before != '-');
        if depth == 0 {
            return at + 1;
        }
        before = c;
    }
    code.len()
}

mod samples {
    use super::*;

    fn found(text: &str, without: &[(&str, &str)]) -> Vec<String> {
        findings(&[Source::new("src/client/x.rs", text)], without)
    }

    #[test]
    fn state_of_which_nothing_is_claimed_is_found() {
        let bad = [
            "struct A { a: u32 }\nimpl A { fn f(&mut self) {} }",
            "struct A<T> { a: T }\nimpl<F: Fn() -> u32, T> Tr<F> for A<T> { fn f(&mut self) {} }",
            "struct A { a: AtomicU32 }",
            "struct A(OnceLock<u8>);",
            "struct A { a: u32 }\nstruct B { a: Mutex<A> }",
        ];
        for text in bad {
            assert_eq!(found(text, &[]).len(), 1, "{text}");
            assert_eq!(found(text, &[("A", "so")]), [""; 0], "{text}");
            let claims = format!("{text}\nimpl<T> A<T> {{ fn invariants(&self) {{}} }}");
            assert_eq!(found(&claims, &[]), [""; 0]);
            assert_eq!(found(&claims, &[("A", "so")]).len(), 1, "the reason is not needed");
        }
    }

    #[test]
    fn what_keeps_no_state_needs_no_claim() {
        let good = [
            "struct A { a: u32 }\nimpl A { fn f(&self) {} fn g(self) {} }",
            "struct A;\nimpl Drop for A { fn drop(&mut self) {} }",
            "struct A { a: u32 }\nstruct B { a: u32 }\n\
             impl B { fn f(&mut self) {} fn invariants(&self) {} }",
            "#[cfg(test)]\nmod tests { struct A; impl A { fn f(&mut self) {} } }",
        ];
        for text in good {
            assert_eq!(found(text, &[]), [""; 0], "{text}");
        }
    }
}
