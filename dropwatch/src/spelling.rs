//! What a mistyped word was meant to be.

/// `: did you mean 'NO_SOCKET'?` if one of the known words is near, and nothing otherwise.
#[must_use]
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|nearest| format!(": did you mean '{nearest}'?")).unwrap_or_default()
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
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("NO_SOKET", ["NETFILTER_DROP", "NO_SOCKET"]), Some("NO_SOCKET"));
        assert_eq!(nearest("no_socket", ["NETFILTER_DROP", "NO_SOCKET"]), Some("NO_SOCKET"));
        assert_eq!(nearest("xyz", ["NETFILTER_DROP", "NO_SOCKET"]), None);
    }
}
