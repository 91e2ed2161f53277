//! What a pane looks like, and where its keys lead.

use std::time::SystemTime;

use ratatui::{Terminal, backend::TestBackend};

use super::{
    breakdown::Table,
    draw::{self, Scroll},
    view::{Kind, Writing},
    *,
};
use crate::model::{
    location::{Location, Symbol},
    reason::Reason,
    report::{Cut, Value},
};

pub fn row(count: u64, values: Vec<Value>) -> Row {
    Row::counting(count, values)
}

fn target() -> Target {
    let symbol =
        Symbol { name: "nft_do_chain".into(), offset: 0x3e8, size: Some(0x6a0), module: "nf_tables".into() };
    let location = Location { address: 0xffff_ffff_c099_411a, symbol: Some(symbol) };
    let reason = Reason { code: 8, subsystem: Some("core".into()), name: Some("NETFILTER_DROP".into()) };
    let values = vec![Value::Location { location, source: None }, Value::Reason(Some(reason))];
    Target {
        by: vec![Key::Location, Key::Reason],
        row: row(20, values),
        filter: None,
        interval: Duration::from_secs(1),
    }
}

fn view() -> DetailView {
    let table = |title, rows: &[(u64, &str)], cut: (u64, u64), beyond| Table {
        title,
        rows: rows.iter().map(|(count, words)| (*count, (*words).to_owned())).collect(),
        cut: Cut { rows: cut.0, drops: cut.1 },
        beyond,
    };
    DetailView {
        stage: Stage::Open,
        since: Some(SystemTime::UNIX_EPOCH),
        drops: 1234,
        meaning: vec![
            "A rule or the policy of a chain in NETFILTER_DROP in nft_do_chain".to_owned(),
            "  Netfilter dropped the packet: a rule of nftables or iptables says so, or the policy of a chain does."
                .to_owned(),
            "  -> table inet filter, chain media, rule 9 (oversize media, ticket 4711): udp dport 6500 counter drop (nft -a list ruleset)"
                .to_owned(),
            "    ip netns exec blue nft -a list ruleset".to_owned(),
            "        the rule whose counter moves with these drops".to_owned(),
        ],
        tables: vec![
            table("INTERFACE", &[(1000, "eth0 of 4026532300(blue)"), (234, "eth1 of 4026532300(blue)")], (0, 0), 0),
            table(
                "FLOW",
                &[
                    (800, "udp 10.77.0.1:40000 > 10.77.0.2:6500"),
                    (200, "udp [2001:db8:1234:5678:9abc:def0:1234:5678]:40000 > [2001:db8:1234:5678:9abc:def0:1234:8765]:6500"),
                ],
                (9, 134),
                100,
            ),
            table("CALL CHAIN", &[(1234, "nft_do_chain < nft_do_chain_inet < nf_hook_slow < ip_local_deliver < ip_rcv")], (0, 0), 0),
        ],
        packets: vec!["22:00:05.123 eth0 length 328: IP 10.77.0.1.40000 > 10.77.0.2.6500: UDP, length 300".to_owned(); 3],
        not_shown: 1231,
        losses: vec!["3 drops are in no row: all rows are taken (4096)".to_owned()],
        writing: Some(Writing { file: "drops.pcapng".to_owned(), written: 7, missing: 2, ..Writing::default() }),
        ..DetailView::default()
    }
}

/// The screen as text, without the blanks at the ends of lines.
fn screen(width: u16, height: u16, view: &DetailView, scroll: &Scroll, name: Option<&str>) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
    let look = Look::of(&|_| None);
    terminal
        .draw(|frame| draw::pane(frame, frame.area(), &look, &target(), view, scroll, name))
        .expect("drawn");
    let buffer = terminal.backend().buffer();
    let lines = (0..height).map(|y| {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

#[test]
fn a_pane_of_each_size() {
    for (width, height) in [(80, 20), (80, 50), (160, 40)] {
        insta::assert_snapshot!(
            format!("pane_{width}x{height}"),
            screen(width, height, &view(), &Scroll::default(), None)
        );
    }
}

#[test]
fn what_is_not_there_yet_and_what_is_refused() {
    let opening = screen(60, 6, &DetailView::default(), &Scroll::default(), None);
    assert!(opening.contains("opening ..."), "{opening}");
    let failed =
        DetailView { stage: Stage::Failed("this kernel has no types".to_owned()), ..DetailView::default() };
    assert!(screen(60, 6, &failed, &Scroll::default(), None).contains("this kernel has no types"));
    let typed = screen(60, 6, &view(), &Scroll::default(), Some("a\u{1b}[2J.pcapng"));
    assert!(typed.contains("write packets to: a\\x1b[2J.pcapng"), "{typed}");
}

/// Everything is reached, nothing beyond, and each section by one key.
#[test]
fn keys_scroll_through_all_of_it() {
    let (view, scroll) = (view(), Scroll::default());
    let whole = view.lines(80);
    let seen = |scroll: &Scroll| screen(80, 12, &view, scroll, None);
    let first = seen(&scroll);
    assert!(first.contains("lines 1-9 of"), "{first}");
    let mut all = first.clone();
    for _ in 0..whole.len() {
        assert!(scroll.key(KeyCode::Char('j')));
        all += &seen(&scroll);
    }
    for (_, line) in &whole {
        assert!(all.contains(line.trim_end()), "{line}");
    }
    assert!(seen(&scroll).contains(&format!("of {}", whole.len())));
    assert!(scroll.key(KeyCode::Home) && seen(&scroll) == first);
    for heading in ["WHAT IT MEANS", "INTERFACE", "FLOW", "CALL CHAIN"] {
        assert!(scroll.key(KeyCode::Tab));
        let text = seen(&scroll);
        assert!(text.lines().nth(2).is_some_and(|line| line.starts_with(heading)), "{heading}: {text}");
    }
    assert!(!scroll.key(KeyCode::Char('x')));
}

/// However narrow it is, no line is wider, and no character is lost.
#[test]
fn lines_fit_any_width() {
    use unicode_width::UnicodeWidthStr as _;
    for width in 30..200 {
        let lines = view().lines(width);
        for (_, line) in &lines {
            assert!(line.width() <= width, "{width}: {line}");
        }
        let letters = |text: &str| text.chars().filter(|it| !it.is_whitespace()).collect::<String>();
        let all = letters(&lines.iter().map(|(_, line)| line.as_str()).collect::<String>());
        for text in view().meaning.iter().chain(&view().packets) {
            assert!(all.contains(&letters(text)), "{width}: {text}");
        }
    }
}

/// A pane of a row that nothing is attached for.
fn detail(target: Target) -> Detail {
    Detail {
        target,
        shared: Shared::new(Arc::new(|| ())),
        frozen: None,
        scroll: Scroll::default(),
        _closing: mpsc::channel().0,
        orders: mpsc::channel().0,
        dig: Box::new(|_, command| Err(io::Error::other(command))),
        digging: None,
        name: None,
    }
}

/// What is counted while the screen is paused is shown afterwards; what was begun by a key, at once.
#[test]
fn a_paused_pane_stays_as_it_is() {
    let mut pane = detail(target());
    *pane.shared.lock() = view();
    let change = |pane: &Detail, drops, file: &str| {
        let mut view = pane.shared.lock();
        view.drops = drops;
        view.packets.push(format!("packet {drops}"));
        view.writing = Some(Writing { file: file.to_owned(), ..Writing::default() });
        view.dug = vec![(Kind::Text, file.to_owned())];
    };
    let seen = |pane: &Detail| {
        let DetailView { drops, packets, writing, dug, .. } = pane.view();
        let file = writing.map(|writing| writing.file).unwrap_or_default();
        (drops, packets.len(), file, dug.len())
    };
    pane.pause(true);
    change(&pane, 2000, "one");
    assert_eq!(seen(&pane), (1234, 3, "one".to_owned(), 1));
    pane.pause(false);
    assert_eq!(seen(&pane), (2000, 4, "one".to_owned(), 1));

    // One that is being opened has nothing yet that could stay.
    let mut opening = detail(target());
    opening.pause(true);
    *opening.shared.lock() = view();
    change(&opening, 7, "two");
    assert_eq!(seen(&opening), (7, 4, "two".to_owned(), 1));
}

/// What is shown can be typed.
#[test]
fn the_command_line_is_that_of_the_row() {
    let mut pane = detail(target());
    assert_eq!(
        pane.command(),
        "dropwatch trace 'location nft_do_chain+0x3e8[nf_tables] and reason NETFILTER_DROP'"
    );
    assert_eq!(
        detail(Target { by: Vec::new(), row: row(1, Vec::new()), ..target() }).command(),
        "dropwatch trace"
    );
    let press = |pane: &mut Detail, code| pane.key(KeyEvent::from(code));
    assert_eq!(press(&mut pane, KeyCode::Char('w')), Reply::Taken);
    assert!(pane.wants_text());
    assert!(pane.name.as_ref().is_some_and(|name| name.starts_with("dropwatch-NETFILTER_DROP-")));
    pane.key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
    for key in ['a', ' ', 'q', 'w'] {
        assert_eq!(press(&mut pane, KeyCode::Char(key)), Reply::Taken);
    }
    press(&mut pane, KeyCode::Backspace);
    assert_eq!(pane.name.as_deref(), Some("a q"));
    assert_eq!(press(&mut pane, KeyCode::Enter), Reply::Say(NO_PACKETS.to_owned()), "there is no writer");
    assert!(!pane.wants_text());
    assert_eq!(press(&mut pane, KeyCode::Char('x')), Reply::Ignored);
    press(&mut pane, KeyCode::Char('w'));
    press(&mut pane, KeyCode::Esc);
    assert!(!pane.wants_text());
}

#[test]
fn a_kernel_without_probes_says_which_option_it_lacks() {
    let lacking = dig::lacks("CONFIG_KPROBES=y", "dropwatch dig 'reason X'");
    let lines = DetailView { dug: lacking, ..DetailView::default() }.lines(200);
    let lines: Vec<_> = lines.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(lines[0], "DIG");
    assert!(lines[1].contains("is built without CONFIG_KPROBES=y"), "{lines:?}");
    assert_eq!(lines.last(), Some(&"    dropwatch dig 'reason X'"));
}

/// A tree keeps its form, and what does not fit goes on below.
#[test]
fn a_tree_keeps_its_columns() {
    let call = "      ip_route_input_noref              = -22 (EINVAL)";
    let dug = vec![(Kind::Text, "  ip_rcv".to_owned()), (Kind::Text, call.to_owned())];
    let view = DetailView { dug, ..DetailView::default() };
    let lines = |width| view.lines(width).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    assert_eq!(lines(80), ["DIG", "  ip_rcv", call]);
    assert_eq!(
        lines(45),
        ["DIG", "  ip_rcv", "      ip_route_input_noref              = -22", "      (EINVAL)"]
    );
}

#[test]
fn digging_is_started_with_the_command_line_of_the_row() {
    let mut pane = detail(target());
    let said = pane.key(KeyEvent::from(KeyCode::Char('d')));
    let Reply::Say(said) = said else { panic!("{said:?}") };
    let command = "dropwatch dig 'location nft_do_chain+0x3e8[nf_tables] and reason NETFILTER_DROP'";
    assert!(said.ends_with(command), "{said}");
}
