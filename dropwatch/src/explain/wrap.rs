//! Paragraphs that fit a page.

/// Adds a paragraph, its lines indented; the first line by `first` instead.
///
/// Words longer than a line are not broken: they are names and commands.
pub fn paragraph(out: &mut String, first: &str, indent: &str, text: &str, width: Option<usize>) {
    let width = width.unwrap_or(usize::MAX);
    let mut column = first.len();
    out.push_str(first);
    let mut is_start = true;
    for word in text.split_whitespace() {
        if !is_start && column + 1 + word.len() > width {
            out.push('\n');
            out.push_str(indent);
            column = indent.len();
            is_start = true;
        }
        if !is_start {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
        is_start = false;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_long_words_are_whole() {
        let mut out = String::new();
        paragraph(&mut out, "* ", "  ", "one two three a-word-longer-than-the-page four", Some(12));
        assert_eq!(out, "* one two\n  three\n  a-word-longer-than-the-page\n  four\n");
        out.clear();
        paragraph(&mut out, "", "", "one  two\nthree", None);
        assert_eq!(out, "one two three\n");
    }
}
