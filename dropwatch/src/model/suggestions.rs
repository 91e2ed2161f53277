//! What a mistyped word was meant to be.

/// `: did you mean 'NO_SOCKET'?` if one of the known words is near, and nothing otherwise.
#[must_use]
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|nearest| format!(": did you mean '{nearest}'?")).unwrap_or_default()
}

/// The same with up to three words, of which there may be many that are alike.
#[must_use]
pub fn hints<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    const NEAR: f64 = 0.85;
    let wanted = word.to_lowercase();
    let alike = known.into_iter().filter(|known| known.len().abs_diff(word.len()) <= 2 + word.len() / 3);
    let mut alike: Vec<_> = alike
        .map(|known| (strsim::jaro_winkler(&wanted, &known.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .collect();
    alike.sort_by(|(one, name), (other, other_name)| other.total_cmp(one).then(name.cmp(other_name)));
    alike.dedup();
    let quoted: Vec<_> = alike.iter().take(3).map(|(_, known)| format!("'{known}'")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => format!(": did you mean {one}?"),
        [others @ .., last] => format!(": did you mean {} or {last}?", others.join(", ")),
    }
}

/// The word that `word` is most likely meant to be, if any is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR: f64 = 0.7;
    let likeness = |known: &str| strsim::jaro_winkler(&word.to_lowercase(), &known.to_lowercase());
    known
        .into_iter()
        .map(|known| (likeness(known), known))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_words_may_be_suggested() {
        let known = ["nft_do_chain", "nft_do_chain_ipv4", "tcp_v4_rcv", "nft_do_chain"];
        assert_eq!(hints("nft_do_chian", known), ": did you mean 'nft_do_chain' or 'nft_do_chain_ipv4'?");
        assert_eq!(hints("tcp_v4_rvc", known), ": did you mean 'tcp_v4_rcv'?");
        assert_eq!(hints("xyz", known), "");
    }

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("NO_SOKET", ["NETFILTER_DROP", "NO_SOCKET"]), Some("NO_SOCKET"));
        assert_eq!(nearest("no_socket", ["NETFILTER_DROP", "NO_SOCKET"]), Some("NO_SOCKET"));
        assert_eq!(nearest("xyz", ["NETFILTER_DROP", "NO_SOCKET"]), None);
    }
}
