//! Rates and shares in a few digits, which never say that there was nothing, or nothing else, when there was.

/// `88.6%`
#[must_use]
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if share > 0.0 && percent < 0.05 {
        "<0.1%".to_owned()
    } else if share < 1.0 && percent >= 99.95 {
        ">99.9%".to_owned()
    } else {
        format!("{percent:.1}%")
    }
}

/// `137.3/s`
#[must_use]
pub fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 0.05 { "<0.1/s".to_owned() } else { format!("{rate:.1}/s") }
}

/// The same; `-` for what is not known.
#[must_use]
pub fn peak(peak: Option<f64>) -> String {
    peak.map_or_else(|| "-".to_owned(), rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_real_is_not_zero() {
        let shares = [0.0, 1e-9, 0.000_49, 0.000_51, 0.5, 0.9994, 0.999_9, 1.0].map(percent);
        assert_eq!(shares, ["0.0%", "<0.1%", "<0.1%", "0.1%", "50.0%", "99.9%", ">99.9%", "100.0%"]);
        assert_eq!([0.0, 1e-9, 0.06, 137.33].map(rate), ["0.0/s", "<0.1/s", "0.1/s", "137.3/s"]);
    }
}
