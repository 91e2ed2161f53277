//! What the ledger counts, in words.

use crate::model::{
    plural::{are, counted},
    snapshot::Ledger,
};

/// A warning for each kind of loss that there was; `rows` are those that there is room for.
#[must_use]
pub fn warnings(ledger: Ledger, rows: u32) -> Vec<String> {
    let Ledger {
        map_full,
        update_failed,
        stack_failed,
        socket_failed,
        undecided,
        headers_unreadable,
        names_unreadable,
        recursion_missed,
    } = ledger;
    let lost =
        |drops: u64, why: &str| (drops > 0).then(|| format!("{} in no row: {why}", are(drops, "drop")));
    let they = if undecided == 1 { "it matches" } else { "they match" };
    let interrupted = if recursion_missed == Some(1) { "it" } else { "each" };
    let warnings = [
        lost(map_full, &format!("all rows are taken ({rows}; see --max-rows)")),
        lost(update_failed, "the kernel refused to add one"),
        (stack_failed > 0).then(|| {
            format!("{} in a row without a call chain: it could not be kept", are(stack_failed, "drop"))
        }),
        (socket_failed > 0).then(|| {
            format!("{} in a row without a socket: it could not be kept", are(socket_failed, "drop"))
        }),
        lost(
            undecided,
            &format!(
                "whether {they} the filter is not known (names of network namespaces, processes or containers)"
            ),
        ),
        (headers_unreadable > 0)
            .then(|| format!("the headers of {} could not be read", counted(headers_unreadable, "packet"))),
        (names_unreadable > 0).then(|| {
            let drops = counted(names_unreadable, "drop");
            format!("not all alternative names of the interfaces of {drops} could be read")
        }),
        lost(
            recursion_missed.unwrap_or(0),
            &format!("{interrupted} interrupted the counting of another one"),
        ),
    ];
    warnings.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(each: u64) -> Ledger {
        Ledger {
            map_full: each,
            update_failed: each,
            stack_failed: each,
            socket_failed: each,
            undecided: each,
            headers_unreadable: each,
            names_unreadable: each,
            recursion_missed: Some(each),
        }
    }

    #[test]
    fn each_loss_is_a_warning_and_one_is_no_plural() {
        let all = |each| warnings(ledger(each), 16).join("\n");
        insta::assert_snapshot!("one", all(1));
        insta::assert_snapshot!("several", all(23));
        assert_eq!(all(0), "");
        assert_eq!(warnings(Ledger::default(), 1), [""; 0]);
    }
}
