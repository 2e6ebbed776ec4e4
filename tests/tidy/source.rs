//! Rust source as the rules see it: comments and literals blanked, test code marked, functions and
//! paths found. A small lexer of our own; it needs to be right for this crate, not for all of Rust.

use std::ops::Range;

/// One file.
pub struct Source {
    /// From the crate's root, with `/` between the parts.
    pub path: String,
    pub text: String,
    /// `text` with comments, strings and characters blanked; as long in bytes, the same lines.
    pub code: String,
    /// The bytes that are compiled for tests only.
    tests: Vec<Range<usize>>,
    /// Files or folders (as beginnings of paths) that only tests compile, declared in this file.
    pub test_children: Vec<String>,
}

/// A function with a body.
pub struct Function<'a> {
    pub name: &'a str,
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: blanked(text),
            tests: Vec::new(),
            test_children: Vec::new(),
        };
        source.find_tests();
        source
    }

    /// The file as a whole is for tests.
    pub fn mark_as_test(&mut self) {
        self.tests.clear();
        self.tests.push(0..self.code.len());
    }

    pub fn line_of(&self, position: usize) -> usize {
        1 + self.code[..position].matches('\n').count()
    }

    pub fn is_test(&self, position: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&position))
    }

    /// Where `pattern` stands in the code, not as a part of a longer name.
    pub fn find(&self, pattern: &str) -> Vec<usize> {
        let code = &self.code;
        let found = code.match_indices(pattern).map(|(at, _)| at);
        let whole = |at: &usize| {
            let (before, after) = (&code[..*at], &code[at + pattern.len()..]);
            let cut_before = pattern.starts_with(is_name) && before.ends_with(is_name);
            let cut_after = pattern.ends_with(is_name) && after.starts_with(is_name);
            !cut_before && !cut_after
        };
        found.filter(whole).collect()
    }

    /// What directly follows `prefix` in paths and imports: `prefix::{a::b, c}` gives `a` and `c`.
    pub fn heads_after(&self, prefix: &str) -> Vec<(usize, &str)> {
        let mut heads = Vec::new();
        for at in self.find(prefix) {
            let start = at + prefix.len();
            let rest = &self.code[start..];
            if rest.starts_with('{') {
                let group = &rest[1..block_end(rest).unwrap_or(rest.len()) - 1];
                heads.extend(group_heads(group).map(|head| (at, head)));
            } else {
                heads.push((at, name_at(rest)));
            }
        }
        heads.retain(|(_, head)| !head.is_empty());
        heads
    }

    pub fn functions(&self) -> Vec<Function<'_>> {
        let mut functions = Vec::new();
        for at in self.find("fn ") {
            let signature = &self.code[at..];
            let Some(end) = item_end(signature) else { continue };
            let item = &signature[..end];
            if item.ends_with('}') {
                let name = name_at(item["fn ".len()..].trim_start());
                let lines = 1 + item.matches('\n').count();
                functions.push(Function { name, line: self.line_of(at), lines });
            }
        }
        functions
    }

    fn find_tests(&mut self) {
        for start in ["#[cfg(test)]", "#[cfg(all(test"] {
            for (at, _) in self.code.match_indices(start) {
                let Some(end) = item_end(&self.code[at..]) else { continue };
                self.tests.push(at..at + end);
                let item = &self.code[at..at + end];
                let Some(name) = item.strip_suffix(';').and_then(|i| i.rsplit_once("mod ")) else {
                    continue;
                };
                let written = &self.text[at..at + end];
                let child = match written.split_once("#[path = \"") {
                    Some((_, rest)) => self.folder() + rest.split('"').next().unwrap_or_default(),
                    None => self.folder_of_children() + name.1.trim(),
                };
                self.test_children.push(child);
            }
        }
    }

    fn folder(&self) -> String {
        self.path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"))
    }

    fn folder_of_children(&self) -> String {
        match self.path.rsplit('/').next() {
            Some("mod.rs" | "lib.rs" | "main.rs") => self.folder(),
            _ => format!("{}/", self.path.trim_end_matches(".rs")),
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The name at the beginning of `code`, or nothing.
pub fn name_at(code: &str) -> &str {
    &code[..code.find(|c| !is_name(c)).unwrap_or(code.len())]
}

/// The first names of a group's members.
fn group_heads(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let members = group.split(move |c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    members.map(|member| name_at(member.trim_start()))
}

/// Where the block ends that `code` begins with, its closing brace included.
fn block_end(code: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        depth += i32::from(matches!(c, '{' | '(' | '[')) - i32::from(matches!(c, '}' | ')' | ']'));
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Where the item ends that `code` begins with: at a semicolon or with its block. Attributes,
/// arguments and array types in front of it are skipped.
pub fn item_end(code: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += code[at..].find(['{', '(', '[', ';'])?;
        match code.as_bytes()[at] {
            b';' => return Some(at + 1),
            b'{' => return Some(at + block_end(&code[at..])?),
            _ => at += block_end(&code[at..])?,
        }
    }
}

/// Turns comments and literals into blanks; line ends stay.
fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = literal_or_comment(rest, code.chars().next_back());
        if length == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let blank = rest[..length].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' });
        code.extend(blank);
        rest = &rest[length..];
    }
    code
}

/// The length of the comment or literal that `rest` begins with; 0 if there is none.
fn literal_or_comment(rest: &str, before: Option<char>) -> usize {
    let until = |end: Option<usize>| end.unwrap_or(rest.len());
    match rest.as_bytes() {
        [b'/', b'/', ..] => until(rest.find('\n')),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => until(string_end(rest, '"')),
        [b'\'', ..] if is_char_literal(rest) => until(string_end(rest, '\'')),
        [b'r' | b'b' | b'c', ..] if !before.is_some_and(is_name) => raw_string(rest),
        _ => 0,
    }
}

/// After the closing quote of a literal that begins with `quote`.
fn string_end(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// A character and not a lifetime: `'a'` or `'\n'`, but not `'a, 'b`.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// `r".."`, `r#".."#`, `br".."` and the like; 0 for anything else.
fn raw_string(rest: &str) -> usize {
    let prefix = rest.trim_start_matches(['b', 'c']);
    let Some(hashed) = prefix.strip_prefix('r') else { return 0 };
    let hashes = hashed.len() - hashed.trim_start_matches('#').len();
    if !hashed[hashes..].starts_with('"') {
        return 0;
    }
    let start = rest.len() - hashed.len() + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    rest[start..].find(&close).map_or(rest.len(), |at| start + at + close.len())
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

#[test]
fn comments_and_literals_are_blanked_and_nothing_else() {
    let cases = [
        ("a // b \"c\nd", "a        \nd"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x // \" y", 'q', '\'', "z") g"#, r#"f(           ,    ,     ,    ) g"#),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("r#\"a \" b\"# c br\"d\" for", "           c       for"),
        ("let r#type = b'x';", "let r#type = b   ;"),
    ];
    for (text, code) in cases {
        assert_eq!(blanked(text), code, "{text}");
    }
}

#[test]
fn test_code_is_told_from_the_rest() {
    let text = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nfn b(_: [u8; 2]) { {} }\nfn c() {}\n\
                #[cfg(all(test, unix))]\nmod tests { fn d() {} }\nfn e() {}\n\
                #[cfg(test)]\n#[path = \"x_tests.rs\"]\nmod tests;\n#[cfg(test)]\nmod y;";
    let source = Source::new("src/m/x.rs", text);
    let named = |name: &str| source.is_test(source.find(&format!("fn {name}"))[0]);
    assert_eq!(["a", "b", "c", "d", "e"].map(named), [false, true, false, true, false]);
    assert_eq!(source.test_children, ["src/m/x_tests.rs", "src/m/x/y"]);
}

#[test]
fn functions_are_found_with_their_length() {
    let text =
        "trait T {\n  fn no_body(&self);\n  fn f(\n    a: fn(u8),\n  ) -> [u8; 2] {\n    g\n  }\n}";
    let source = Source::new("src/x.rs", text);
    let found: Vec<_> = source.functions().iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("f", 3, 5)]);
}

#[test]
fn the_first_names_after_a_path_are_found_in_groups_too() {
    let source = Source::new("src/x.rs", "use crate::{a::{b, c}, d}; crate::e::f(); mycrate::g;");
    let heads: Vec<_> = source.heads_after("crate::").iter().map(|(_, head)| *head).collect();
    assert_eq!(heads, ["a", "d", "e"]);
}
