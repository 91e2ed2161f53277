//! Processors that go and come back: no count goes with them.

use std::collections::BTreeMap;

use libtest_mimic::Trial;

use super::dig::OneCpu;
use crate::support::{
    inject::needs,
    net::Net,
    trial::trial,
    udp_receiver,
    watch::{Reports, Watch},
};

/// All of them.
pub fn trials(can_run: bool) -> Vec<Trial> {
    let body = || {
        come_and_go();
        Ok(())
    };
    vec![trial("processors::one_that_goes_takes_no_count_along".into(), &[needs::HOTPLUG], can_run, body)]
}

/// The second processor, offline until this is dropped.
fn offline() -> OneCpu {
    OneCpu::in_guests().expect("this is a guest")
}

fn come_and_go() {
    let net = Net::quiet();
    let here = format!("netns {}", net.inum());
    let by_processor = || Watch::start(&["-o", "json", "-i", "100ms", "-b", "cpu", "-f", &here]);
    let (plain, split) = (Watch::start(&["-o", "json", "-i", "100ms"]), by_processor());
    net.drop_datagrams_on(1, 17);
    let away = offline();
    net.drop_datagrams_on(0, 23);
    // One that has never seen the second processor.
    let late = by_processor();
    net.drop_datagrams_on(0, 31);
    drop(away);
    net.drop_datagrams_on(1, 29);
    drop(offline());
    net.drop_datagrams_on(1, 41);

    let plain = plain.stop();
    assert_eq!(plain.at(udp_receiver(), "NO_SOCKET"), 17 + 23 + 31 + 29 + 41, "{plain:?}");
    let split = split.stop();
    assert_eq!(counts(&split), BTreeMap::from([(0, 23 + 31), (1, 17 + 29 + 41)]), "{split:?}");
    let late = late.stop();
    assert_eq!(counts(&late), BTreeMap::from([(0, 31), (1, 29 + 41)]), "{late:?}");
}

/// The drops by processor.
fn counts(reports: &Reports) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for row in reports.rows() {
        let processor = row["cpu"].as_u64().expect("a processor");
        *counts.entry(processor).or_default() += row["count"].as_u64().expect("a count");
    }
    counts
}
