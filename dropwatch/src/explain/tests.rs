use proptest::prelude::*;

use super::{ExplainFormat, Page, Request, answer};
use crate::{escape::is_unsafe, knowledge::ENTRIES};

const SCREEN: Page = Page { width: Some(80), colour: false };

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn explain(words: &[&str]) -> Result<String, String> {
    answer(Request { words: &strings(words), list: false, format: ExplainFormat::Text, page: SCREEN })
}

fn list(words: &[&str]) -> Result<String, String> {
    answer(Request { words: &strings(words), list: true, format: ExplainFormat::Text, page: SCREEN })
}

fn first_line(words: &[&str]) -> String {
    explain(words).expect("an explanation").lines().next().expect("a line").to_string()
}

#[test]
fn explanations_on_a_screen() {
    for (name, words) in [
        ("full_buffer", &["SOCKET_RCVBUFF@udp_queue_rcv_one_skb"][..]),
        ("ttl", &["IP_INHDR@ip_forward"]),
        ("function", &["ip_error"]),
        ("group", &["ip6_mc_input"]),
        ("two", &["CPU_BACKLOG", "gre_rcv[gre]"]),
    ] {
        insta::assert_snapshot!(name, explain(words).unwrap());
    }
}

#[test]
fn lists_and_searches() {
    insta::assert_snapshot!("search", list(&["checksum"]).unwrap());
    assert_eq!(list(&[]).unwrap().lines().count(), ENTRIES.len());
    // All the words, in any field, whatever their case.
    assert!(list(&["CONNTRACK", "full"]).unwrap().contains("nf_hook_slow"));
    assert!(list(&["net.core.somaxconn"]).unwrap().contains("TCP_LISTEN_OVERFLOW"));
    assert!(list(&["no such words at all"]).unwrap_err().contains("no such words at all"));
}

#[test]
fn json_is_an_object_for_each_entry() {
    let request = Request {
        words: &strings(&["TCP_LISTEN_OVERFLOW"]),
        list: false,
        format: ExplainFormat::Json,
        page: SCREEN,
    };
    insta::assert_snapshot!("json", answer(request).unwrap());
    let all = answer(Request { words: &[], list: true, ..request }).unwrap();
    assert_eq!(all.lines().count(), ENTRIES.len());
    for line in all.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["schema"], 1);
        assert!(["lost", "refused", "harmless"].contains(&object["class"].as_str().unwrap()), "{line}");
    }
}

/// The kernel's prefixes, lower case, and printed locations mean the same.
#[test]
fn names_are_taken_as_they_are_printed() {
    let same =
        [&["NO_SOCKET"][..], &["no_socket"], &["SKB_DROP_REASON_NO_SOCKET"], &["skb_drop_reason_no_socket"]];
    for words in same {
        assert_eq!(explain(words), explain(&["NO_SOCKET"]), "{words:?}");
    }
    let same = [
        &["nft_do_chain"][..],
        &["nft_do_chain+0x5ad/0x610"],
        &["nft_do_chain+0x5ad/0x610 [kernel]"],
        &["nft_do_chain+0x5ad/0x610", "[kernel]"],
        &["nft_do_chain[nf_tables]"],
    ];
    for words in same {
        assert_eq!(explain(words), explain(&["nft_do_chain"]), "{words:?}");
    }
    assert!(
        first_line(&["gre_rcv+0x12/0x40 [gre]"])
            .ends_with("[gre]: A GRE packet of a version that is not loaded")
    );
}

/// A reason in a function that gives it no other meaning is that reason.
#[test]
fn a_reason_in_any_function_is_explained() {
    assert!(first_line(&["IP_CSUM@a_function_of_tomorrow"]).starts_with("IP_CSUM: "));
    assert!(first_line(&["IP_INHDR@ip_forward"]).contains("TTL"));
    assert!(first_line(&["NOT_SPECIFIED@ip_error"]).contains("blackhole"));
    // The general meaning comes first, then where it means something else.
    assert!(first_line(&["IP_INHDR"]).starts_with("IP_INHDR: "));
    assert!(explain(&["IP_INHDR"]).unwrap().contains("TTL"));
}

/// What is unknown is refused as a whole, with the nearest names.
#[test]
fn unknown_names_get_the_nearest() {
    assert!(explain(&["NO_SOKET"]).unwrap_err().contains("did you mean NO_SOCKET"));
    assert!(explain(&["nft_do_chian"]).unwrap_err().contains("nft_do_chain"));
    assert!(explain(&["core:12"]).unwrap_err().contains("number"));
    assert!(explain(&["0xffffffff814a104a"]).unwrap_err().contains("address"));
    assert!(explain(&["zzz"]).unwrap_err().contains("--list"));
    let both = explain(&["NO_SOCKET", "NO_SOKET", "zzz"]).unwrap_err();
    assert!(both.contains("NO_SOKET") && both.contains("zzz"), "{both}");
}

/// The document is what the texts say now: `cargo xtask reasons` writes it.
#[test]
fn the_document_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reasons.md");
    let now =
        answer(Request { words: &[], list: true, format: ExplainFormat::Markdown, page: Page::default() });
    let there = std::fs::read_to_string(path).expect("docs/reasons.md");
    assert!(now.unwrap() == there, "docs/reasons.md is out of date: run `cargo xtask reasons`");
}

/// Every line fits the page, except commands and names, which stay whole so that they can be copied.
#[test]
fn lines_fit_the_page() {
    let text = answer(Request { words: &[], list: true, format: ExplainFormat::Text, page: SCREEN }).unwrap();
    assert!(text.lines().all(|line| line.len() <= 80));
    let names: Vec<_> =
        ENTRIES.iter().flat_map(|entry| entry.reasons.iter().chain(entry.functions)).collect();
    for name in names.iter().filter(|name| !name.ends_with('*')) {
        for line in explain(&[name]).unwrap().lines().filter(|line| line.len() > 80) {
            assert!(line.starts_with("    "), "{line}");
        }
    }
}

fn is_printable(text: &str) -> bool {
    text.chars().all(|character| character == '\n' || !is_unsafe(character))
}

proptest! {
    /// Any query gets an answer: nothing panics, and no part of the query reaches a terminal unescaped.
    #[test]
    fn any_question_has_a_printable_answer(
        words in prop::collection::vec(any::<String>(), 0..4),
        list: bool,
        width in prop::option::of(0_usize..200),
        format in prop::sample::select(vec![ExplainFormat::Text, ExplainFormat::Json, ExplainFormat::Markdown]),
    ) {
        let page = Page { width, colour: false };
        match answer(Request { words: &words, list, format, page }) {
            Ok(answer) => prop_assert!(is_printable(&answer)),
            Err(message) => prop_assert!(is_printable(&message), "{message:?}"),
        }
    }

    /// Names with a typing error or two are answered, whatever they hit.
    #[test]
    fn mistyped_names_are_answered(index: prop::sample::Index, at: prop::sample::Index, other: char) {
        let names: Vec<_> = ENTRIES.iter().flat_map(|entry| entry.reasons.iter().chain(entry.functions)).collect();
        let name = names[index.index(names.len())];
        let mut characters: Vec<char> = name.chars().collect();
        let place = at.index(characters.len());
        characters[place] = other;
        let word: String = characters.into_iter().collect();
        let (Ok(answer) | Err(answer)) = explain(&[&word]);
        prop_assert!(is_printable(&answer) && !answer.is_empty());
    }
}
