//! What a user may type or paste for a reason or a function.

/// A name, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name<'a> {
    /// The reason, or what may be a function as well if there is nothing else.
    pub word: &'a str,
    /// The function, where both are given.
    pub function: Option<&'a str>,
    /// The module a function is in.
    pub module: Option<&'a str>,
}

/// The names in these arguments. A printed location's module may be an argument of its own.
pub fn names(arguments: &[String]) -> Vec<Name<'_>> {
    let mut names: Vec<Name<'_>> = Vec::new();
    for argument in arguments {
        let argument = argument.trim();
        match (bracketed(argument), names.last_mut()) {
            (Some(("", module)), Some(last)) => last.module = module_of(module),
            _ => names.push(name(argument)),
        }
    }
    names
}

/// `REASON@FUNCTION`, `FUNCTION+0x5ad/0x610 [MODULE]`, or one of their parts.
fn name(text: &str) -> Name<'_> {
    let (text, module) = bracketed(text).map_or((text, None), |(text, module)| (text, module_of(module)));
    let both = text.split_once('@').or_else(|| text.split_once(" in ")).or_else(|| text.split_once(" at "));
    let (word, function) = match both {
        Some((reason, function)) => (reason.trim(), Some(symbol(function.trim()))),
        None => (symbol(text.trim()), None),
    };
    Name { word, function, module }
}

/// What is before brackets at the end, and in them.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let (before, module) = text.strip_suffix(']')?.split_once('[')?;
    Some((before.trim_end(), module))
}

/// The kernel proper is no module.
fn module_of(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty() && *name != "kernel")
}

/// A printed location without its offset.
fn symbol(text: &str) -> &str {
    text.split_once("+0x").map_or(text, |(symbol, _)| symbol)
}

/// A reason without the prefixes that the kernel gives it, in upper case.
pub fn bare_reason(word: &str) -> String {
    let word = word.trim_start_matches('_').to_ascii_uppercase();
    let bare = word.strip_prefix("SKB_DROP_REASON_").or_else(|| word.strip_prefix("SKB_DROP_"));
    bare.map_or(word.clone(), str::to_string)
}

/// Whether it is a reason's number, which stands for another reason on each kernel: `core:12`, `2:5`, `77`.
pub fn is_number(word: &str) -> bool {
    let number = word.rsplit(':').next().unwrap_or(word);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether it is an address, which only the running kernel can name.
pub fn is_address(word: &str) -> bool {
    word.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Vec<(String, Option<String>, Option<String>)> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let owned = |text: Option<&str>| text.map(str::to_string);
        let names = names(&arguments);
        names.iter().map(|name| (name.word.to_string(), owned(name.function), owned(name.module))).collect()
    }

    fn one(
        word: &str,
        function: Option<&str>,
        module: Option<&str>,
    ) -> (String, Option<String>, Option<String>) {
        (word.to_string(), function.map(str::to_string), module.map(str::to_string))
    }

    /// Whatever a report prints can be pasted, quoted or not.
    #[test]
    fn printed_locations_are_names() {
        assert_eq!(of(&["nft_do_chain+0x5ad/0x610 [kernel]"]), [one("nft_do_chain", None, None)]);
        assert_eq!(
            of(&["nft_do_chain+0x5ad/0x610", "[nf_tables]"]),
            [one("nft_do_chain", None, Some("nf_tables"))]
        );
        assert_eq!(of(&["gre_rcv[gre]"]), [one("gre_rcv", None, Some("gre"))]);
        assert_eq!(of(&["IP_INHDR@ip_forward+0x2c0"]), [one("IP_INHDR", Some("ip_forward"), None)]);
        assert_eq!(of(&["IP_INHDR in ip_forward"]), [one("IP_INHDR", Some("ip_forward"), None)]);
        assert_eq!(of(&["[gre]"]), [one("", None, Some("gre"))]);
    }

    #[test]
    fn prefixes_and_case_do_not_matter() {
        assert_eq!(bare_reason("skb_drop_reason_no_socket"), "NO_SOCKET");
        assert_eq!(bare_reason("___RX_DROP_U_MIC_FAIL"), "RX_DROP_U_MIC_FAIL");
        assert!(is_number("core:12") && is_number("2:5") && is_number("77") && !is_number("core:"));
        assert!(is_address("0xffffffff814a104a") && !is_address("0xyz"));
    }
}
