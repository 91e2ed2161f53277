//! One packet, two packets.

/// A number of something: `1 drop`, `2 drops`.
#[must_use]
pub fn counted(number: u64, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {what}{ending}")
}

/// A number of something, with its verb: `1 drop is`, `2 drops are`.
#[must_use]
pub fn are(number: u64, what: &str) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(number, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let all = [0, 1, 2].map(|number| counted(number, "packet"));
        assert_eq!(all, ["0 packets", "1 packet", "2 packets"]);
        assert_eq!([1, 2].map(|number| are(number, "drop")), ["1 drop is", "2 drops are"]);
    }
}
