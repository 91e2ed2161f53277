//! The calls on a packet's way, from the steps that the probes reported.

use dropwatch_common::dig::{Step, WalkHead, step};

/// A call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The function, by its number in the plan.
    pub function: usize,
    /// The packet it was called with; 0 if it has no such argument.
    pub skb: u64,
    /// What it returned, in a register; none if its return was not seen.
    pub value: Option<u64>,
    /// What it called, in order.
    pub calls: Vec<Call>,
    /// Whether the packet was freed here, or in one of its calls: the last one in `calls`, if so.
    pub end: End,
}

/// The packet's end, as seen from a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// It is not in here.
    #[default]
    Elsewhere,
    /// In the last of the calls.
    Below,
    /// Here, after all the calls.
    Here,
}

/// What happened up to the packet's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The outermost root.
    pub root: Call,
    /// What is missing, if something is.
    pub gaps: Gaps,
}

/// What a tree lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Steps that found no room.
    pub lost: u32,
    /// Calls whose return was not seen, and returns whose call was not.
    pub unpaired: u32,
}

impl Tree {
    /// The tree of the packet that was dropped; none if it was freed in no call.
    ///
    /// Calls with another packet are left out, and so is what was called once it was freed.
    #[must_use]
    pub fn new(head: &WalkHead, steps: &[Step]) -> Option<Self> {
        let mut building = Building { gaps: Gaps { lost: head.lost, unpaired: 0 }, ..Building::default() };
        for (number, step) in (0..).zip(steps) {
            let is_end = step.kind == step::FREED && number == head.freed;
            building.add(step, is_end);
        }
        let mut root = building.finish()?;
        prune(&mut root, head.skb);
        Some(Self { root, gaps: building.gaps })
    }
}

#[derive(Default)]
struct Building {
    open: Vec<Call>,
    /// How many of the open calls are on the packet's way, once it has ended.
    on_the_way: Option<usize>,
    done: Option<Call>,
    gaps: Gaps,
}

impl Building {
    fn add(&mut self, step: &Step, is_end: bool) {
        let function = usize::from(step.function);
        match step.kind {
            step::CALL => self.open.push(Call { function, skb: step.value, ..Call::default() }),
            step::RETURN => self.close(function, step.value),
            _ if is_end && self.on_the_way.is_none() && !self.open.is_empty() => {
                self.on_the_way = Some(self.open.len());
                for call in &mut self.open {
                    call.end = End::Below;
                }
                if let Some(last) = self.open.last_mut() {
                    last.end = End::Here;
                }
            }
            _ => {}
        }
    }

    /// A function returns: the innermost open call of it, and those in it whose returns were not seen.
    fn close(&mut self, function: usize, value: u64) {
        let Some(place) = self.open.iter().rposition(|call| call.function == function) else {
            self.gaps.unpaired += 1;
            return;
        };
        while self.open.len() > place {
            let is_it = self.open.len() == place + 1;
            self.gaps.unpaired += u32::from(!is_it);
            self.pop(is_it.then_some(value));
        }
    }

    fn pop(&mut self, value: Option<u64>) {
        let Some(call) = self.open.pop() else { return };
        let call = Call { value, ..call };
        // What is called on the way once the packet has ended does not matter.
        let is_late = self.on_the_way.is_some_and(|depth| self.open.len() >= depth);
        match self.open.last_mut() {
            _ if is_late => return,
            Some(caller) => caller.calls.push(call),
            None if self.on_the_way.is_some() => {
                self.done.get_or_insert(call);
            }
            None => {}
        }
        if let Some(depth) = &mut self.on_the_way {
            *depth = (*depth).min(self.open.len());
        }
    }

    /// The outermost call on the packet's way; roots that have not returned are closed.
    fn finish(&mut self) -> Option<Call> {
        while !self.open.is_empty() {
            self.gaps.unpaired += 1;
            self.pop(None);
        }
        self.done.take()
    }
}

/// Leaves out calls with another packet than the one that was dropped.
fn prune(call: &mut Call, skb: u64) {
    call.calls.retain(|below| below.end != End::Elsewhere || below.skb == 0 || below.skb == skb);
    for below in &mut call.calls {
        prune(below, skb);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const SKB: u64 = 0xff11_0000_0000_1000;

    /// `>N` calls N with the packet, `>N*` with another one, `>N-` with none; `<N=V` returns; `!` frees it.
    pub fn walk(text: &str) -> (WalkHead, Vec<Step>) {
        let mut head = WalkHead { skb: SKB, dropped: 1, ..WalkHead::default() };
        let mut steps = Vec::new();
        for (number, word) in (0..).zip(text.split_whitespace()) {
            let (kind, rest) = word.split_at(1);
            let (function, value, kind) = match kind {
                ">" => match rest.strip_suffix(['*', '-']) {
                    Some(function) if rest.ends_with('*') => (function, 7, step::CALL),
                    Some(function) => (function, 0, step::CALL),
                    None => (rest, SKB, step::CALL),
                },
                "<" => {
                    let (function, value) = rest.split_once('=').unwrap();
                    (function, value.parse::<i64>().unwrap().cast_unsigned(), step::RETURN)
                }
                _ => {
                    head.freed = number;
                    ("0", SKB, step::FREED)
                }
            };
            steps.push(Step { value, elapsed: 0, function: function.parse().unwrap(), kind });
        }
        (head, steps)
    }

    /// The calls from a call down to the one that freed the packet.
    fn path(call: &Call) -> impl Iterator<Item = &Call> {
        std::iter::successors(Some(call), |call| call.calls.last().filter(|_| call.end == End::Below))
    }

    pub fn tree(text: &str) -> Tree {
        let (head, steps) = walk(text);
        Tree::new(&head, &steps).expect("a tree")
    }

    /// `N(calls)=V`, with `!` where the packet ends.
    fn drawn(call: &Call) -> String {
        let calls: Vec<_> = call.calls.iter().map(drawn).collect();
        let end = if call.end == End::Here { "!" } else { "" };
        let value = call.value.map_or("?".to_owned(), |value| value.cast_signed().to_string());
        format!("{}({}{end})={value}", call.function, calls.join(" "))
    }

    #[test]
    fn calls_and_returns_make_a_tree() {
        let tree = tree(">1 >2 <2=1 >3 >4- <4=0 <3=-22 ! <1=1");
        assert_eq!(drawn(&tree.root), "1(2()=1 3(4()=0)=-22!)=1");
        assert_eq!(tree.gaps, Gaps::default());
        assert_eq!(path(&tree.root).count(), 1);
    }

    #[test]
    fn what_comes_after_the_end_is_left_out() {
        let tree = tree(">1 >2 ! >5 <5=9 <2=1 >3 <3=4 <1=0");
        assert_eq!(drawn(&tree.root), "1(2(!)=1)=0");
        assert_eq!(path(&tree.root).map(|call| call.function).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(tree.gaps, Gaps::default());
    }

    #[test]
    fn calls_with_other_packets_are_left_out() {
        let tree = tree(">1 >2* >3 <3=0 <2=0 >4- <4=0 ! <1=0");
        assert_eq!(drawn(&tree.root), "1(4()=0!)=0");
        // The packet was another one when it was called: it may have been copied since.
        let tree = self::tree(">1* >2 ! <2=0 <1=0");
        assert_eq!(drawn(&tree.root), "1(2(!)=0)=0");
    }

    #[test]
    fn a_root_before_the_one_of_interest_is_left_out() {
        assert_eq!(drawn(&tree(">1 <1=0 >1 ! <1=5").root), "1(!)=5");
        assert_eq!(drawn(&tree(">1 ! <1=5 >1 <1=0").root), "1(!)=5");
    }

    #[test]
    fn what_was_missed_is_said() {
        let tree = tree(">1 >2 >3 <2=0 <9=1 ! <1=1");
        assert_eq!(drawn(&tree.root), "1(2(3()=?)=0!)=1");
        assert_eq!(tree.gaps, Gaps { lost: 0, unpaired: 2 });
        assert_eq!(drawn(&self::tree(">1 >2 !").root), "1(2(!)=?)=?");
        let (head, steps) = walk(">1 <1=0 !");
        assert_eq!(Tree::new(&head, &steps), None);
    }

    fn depth(call: &Call) -> usize {
        1 + call.calls.iter().map(depth).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn any_steps_are_read(
            steps in vec((0_u64..4, 0_u16..6, 0_u16..4), 0..200),
            freed: u8,
            lost: u32,
        ) {
            let step = |(value, function, kind)| Step { value, elapsed: 0, function, kind };
            let steps: Vec<_> = steps.into_iter().map(step).collect();
            let head = WalkHead { skb: 1, freed: freed.into(), lost, ..WalkHead::default() };
            if let Some(tree) = Tree::new(&head, &steps) {
                let ends = path(&tree.root).filter(|call| call.end == End::Here).count();
                prop_assert_eq!(ends, 1, "one end, on the way");
                prop_assert!(depth(&tree.root) <= steps.len());
            }
        }
    }
}
