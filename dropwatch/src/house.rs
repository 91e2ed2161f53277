//! The house as docs/architecture.md describes it, compared with the sources.

use std::{collections::BTreeSet, fs, iter::Peekable, path::Path, str::FromStr as _};

use proc_macro2::{TokenStream, TokenTree, token_stream};

/// Rooms that the table leaves out: the way in, above all others, and what tests alone use, which do as they like.
const ENTRY: &str = "entry";
const OF_TESTS: [&str; 2] = ["fakes", "house"];
/// Where `unsafe` stands outside of `sys`: a promise to aya that `bytemuck` has proved, functions of aya's that are unsafe
/// to call, and what tests do to sockets and devices.
const UNSAFE: [&str; 4] = [
    "dropwatch-common/src/lib.rs",
    "xtask/src/bench/held.rs",
    "tests/support/frames.rs",
    "tests/support/inject/sys.rs",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

/// The rooms in the table of the architecture, from the top.
fn rooms() -> Vec<String> {
    let text = fs::read_to_string(repository().join("docs/architecture.md")).expect("the architecture");
    let table = text.lines().skip_while(|line| !line.starts_with("| room")).skip(2);
    let rows = table.map_while(|line| line.strip_prefix("| ")?.split(" |").next());
    [ENTRY.to_owned()]
        .into_iter()
        .chain(rows.flat_map(|row| row.split(", ")).map(|room| room.replace('`', "")))
        .collect()
}

/// All sources below a folder: their paths in the repository, and their tokens.
fn sources(folder: &str) -> Vec<(String, TokenStream)> {
    let mut folders = vec![repository().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                let tokens = TokenStream::from_str(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let path = path.strip_prefix(repository()).expect("in the repository");
                found.push((path.to_string_lossy().into_owned(), tokens));
            }
        }
    }
    found
}

/// What follows `crate::` wherever it stands: one name, or the first of each path in braces.
fn used(tokens: TokenStream, found: &mut BTreeSet<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => used(group.stream(), found),
            TokenTree::Ident(word) if word == "crate" && is_path(&mut tokens) => match tokens.next() {
                Some(TokenTree::Ident(name)) => drop(found.insert(name.to_string())),
                Some(TokenTree::Group(group)) => found.extend(firsts(group.stream())),
                _ => {}
            },
            _ => {}
        }
    }
}

/// Takes the two colons of a path.
fn is_path(tokens: &mut Peekable<token_stream::IntoIter>) -> bool {
    let mut is_colon =
        || tokens.next_if(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ':'));
    is_colon().and_then(|_| is_colon()).is_some()
}

/// The first name of each path between commas.
fn firsts(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let paths = tokens.split(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ','));
    paths.filter_map(|path| path.first().map(ToString::to_string)).collect()
}

/// Whether a word stands anywhere in the code.
fn has(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => has(group.stream(), word),
        TokenTree::Ident(found) => found == word,
        _ => false,
    })
}

/// The room that a source of the program belongs to.
fn room_of(path: &str) -> Option<&str> {
    let path = path.strip_prefix("dropwatch/src/")?;
    Some(path.split_once('/').map_or_else(|| path.trim_end_matches(".rs"), |(room, _)| room))
}

/// Whether a source is compiled for tests only.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[test]
fn rooms_use_only_rooms_below_them() {
    let rooms = rooms();
    let mut seen = BTreeSet::new();
    for (path, tokens) in sources("dropwatch/src") {
        let room = room_of(&path).expect("a source of the program");
        if is_test(&path) || OF_TESTS.contains(&room) || ["lib", "main"].contains(&room) {
            continue;
        }
        let floor = rooms.iter().position(|known| known == room);
        let floor = floor.unwrap_or_else(|| panic!("{path}: docs/architecture.md has no room '{room}'"));
        let mut uses = BTreeSet::new();
        used(tokens, &mut uses);
        for other in uses.iter().filter(|other| *other != room && !OF_TESTS.contains(&other.as_str())) {
            assert!(rooms[floor..].contains(other), "{path} uses '{other}', which is not below '{room}'");
        }
        seen.insert(room.to_owned());
    }
    assert_eq!(seen, rooms.into_iter().collect(), "the rooms with sources, and those of the table");
}

#[test]
fn unsafe_code_stands_in_one_room() {
    for folder in ["dropwatch", "dropwatch-common", "dropwatch-testing", "fuzz", "tests", "xtask"] {
        for (path, tokens) in sources(folder) {
            let is_known = room_of(&path) == Some("sys") || UNSAFE.contains(&path.as_str());
            assert!(is_known || !has(tokens, "unsafe"), "unsafe code in {path} belongs in dropwatch/src/sys");
        }
    }
}

#[test]
fn paths_are_found_however_they_are_written() {
    let code = "use crate::{a, b::{c, d}}; // crate::none\nfn f() { m!(crate::e::F, \"crate::none\"); pub(crate) fn g() {} }";
    let mut found = BTreeSet::new();
    used(code.parse().expect("code"), &mut found);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "b", "e"]);
}
