//! Which call refused the packet, as far as the values say.

use super::{
    tree::{Call, End, Gaps, Tree},
    value::{Kind, Value},
};
use crate::{
    dig::plan::Function,
    kernel::btf::{Prototype, Returns},
    model::location::SourceLine,
};

/// A call with its name and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCall {
    /// The function.
    pub function: Function,
    /// What it returned.
    pub value: Value,
    /// What it called.
    pub calls: Vec<NamedCall>,
    /// Whether the packet was freed here.
    pub end: End,
    /// Its part in the refusal.
    pub part: Part,
    /// Where its function begins in the source, if it has a part and that is known.
    pub source: Option<SourceLine>,
}

impl NamedCall {
    /// Adds where functions begin: those that have a part in the refusal, and the one that freed the packet.
    pub fn find_sources(&mut self, source: &mut impl FnMut(&Function) -> Option<SourceLine>) {
        if self.part != Part::None || self.end == End::Here {
            self.source = source(&self.function);
        }
        for call in &mut self.calls {
            call.find_sources(source);
        }
    }
}

/// A call's part in the refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// None that is known.
    #[default]
    None,
    /// It returned what one of its own calls had refused with.
    PassedOn,
    /// It refused the packet.
    Refused,
    /// What the one that refused had called last, and what it answered to that.
    LastAnswer,
}

/// What the values say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A call refused the packet, and its callers passed that on to the one that freed it.
    Refused {
        /// The function.
        by: String,
        /// With which error.
        with: String,
        /// What it called last that said no: the function and the value.
        after: Option<(String, String)>,
    },
    /// No call below the function that freed the packet returned an error.
    Itself {
        /// That function.
        by: String,
        /// What it called last: the function and the value. That need not be why.
        last: Option<(String, String)>,
    },
}

/// A tree with names, values and a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The outermost root.
    pub root: NamedCall,
    /// What the values say.
    pub verdict: Verdict,
    /// The refusal from the function that freed the packet down, each call with its value; the last answer included.
    pub refusal: Vec<(String, Value)>,
    /// The function that refused it, or that freed it by itself.
    pub decides: Function,
    /// What the tree lacks.
    pub gaps: Gaps,
}

impl Finding {
    /// Reads a tree, with the functions of its numbers.
    ///
    /// `None` if a number is that of no function.
    #[must_use]
    pub fn new(tree: &Tree, functions: &[Function], prototypes: &[Option<Prototype>]) -> Option<Self> {
        let mut root = named(&tree.root, functions, prototypes)?;
        let mut judging = Judging { refusal: Vec::new(), decides: root.function.clone() };
        let verdict = judging.judge(freeing(&mut root));
        let Judging { refusal, decides } = judging;
        Some(Self { root, verdict, refusal, decides, gaps: tree.gaps })
    }
}

fn named(call: &Call, functions: &[Function], prototypes: &[Option<Prototype>]) -> Option<NamedCall> {
    let function = functions.get(call.function)?.clone();
    let prototype = prototypes.get(call.function)?.as_ref();
    // Some calls end in a jump, to which the kernel gives no frame of its own: their value is another's.
    let value = Value::new(&function, prototype, call.value);
    let mut calls =
        call.calls.iter().map(|call| named(call, functions, prototypes)).collect::<Option<Vec<_>>>()?;
    if matches!(prototype, Some(Prototype { returns: Returns::Enum { .. }, .. })) {
        for call in &mut calls {
            read_as_reason(call, &value);
        }
    }
    Some(NamedCall { function, value, calls, end: call.end, part: Part::None, source: None })
}

fn read_as_reason(call: &mut NamedCall, reason: &Value) {
    call.value.read_as_reason(reason);
    for call in &mut call.calls {
        read_as_reason(call, reason);
    }
}

/// The call that freed the packet.
fn freeing(root: &mut NamedCall) -> &mut NamedCall {
    let mut call = root;
    while call.end == End::Below && !call.calls.is_empty() {
        let last = call.calls.len() - 1;
        call = &mut call.calls[last];
    }
    call
}

/// What is found out on the way to a verdict.
struct Judging {
    refusal: Vec<(String, Value)>,
    decides: Function,
}

impl Judging {
    fn pass(&mut self, call: &NamedCall) {
        self.refusal.push((call.function.source_name(), call.value.clone()));
    }

    fn judge(&mut self, call: &mut NamedCall) -> Verdict {
        self.pass(call);
        if let Some(refused) = call.calls.iter().rposition(|call| call.value.is_error()) {
            return self.descend(&mut call.calls[refused], String::new());
        }
        self.decides = call.function.clone();
        let last = call.calls.iter_mut().rev().find(|call| call.value.is_known());
        Verdict::Itself { by: call.function.source_name(), last: last.map(|last| self.last_answer(last)) }
    }

    /// From a call that returned an error to the one that it comes from. One of unknown type refuses with what its caller
    /// passed on.
    fn descend(&mut self, call: &mut NamedCall, passed_on: String) -> Verdict {
        self.pass(call);
        let value = call.value.clone();
        let with = value.error().unwrap_or(passed_on);
        let is_its = |below: &NamedCall| {
            let is_passed_on = below.value.low == value.low && value.low != 0;
            // An error that is passed on as another one must be known to be one.
            let is_sure = !below.value.is_unsure || !matches!(value.kind, Kind::Error(_));
            below.value.is_error() && is_sure || below.value.is_unsure && is_passed_on
        };
        if let Some(refused) = call.calls.iter().rposition(is_its) {
            call.part = Part::PassedOn;
            return self.descend(&mut call.calls[refused], with);
        }
        call.part = Part::Refused;
        self.decides = call.function.clone();
        let last = call.calls.iter_mut().rev().find(|call| call.value.is_known());
        let after = last.filter(|call| call.value.is_no()).map(|last| self.last_answer(last));
        Verdict::Refused { by: call.function.source_name(), with, after }
    }

    fn last_answer(&mut self, call: &mut NamedCall) -> (String, String) {
        call.part = Part::LastAnswer;
        self.pass(call);
        (call.function.source_name(), call.value.to_string())
    }
}

impl Verdict {
    /// The sentence, without the meaning.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Refused { by, with, after: Some((function, answer)) } => {
                format!("{by} refused the packet with {with} after {function} answered {answer}")
            }
            Self::Refused { by, with, after: None } => format!("{by} refused the packet with {with}"),
            Self::Itself { by, last: None } => {
                format!("no call below {by} refused the packet: {by} decided by itself")
            }
            Self::Itself { by, last: Some((function, value)) } => format!(
                "no call below {by} refused the packet: {by} decided by itself; its last call before was {function}, \
                 which answered {value}"
            ),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::dig::{
        tree,
        value::tests::{INT, function, prototype},
    };

    const BOOL: Returns = Returns::Bool;

    /// A walk in the words of [`tree::tests::walk`], with functions by number.
    pub fn finding(functions: &[(&str, Option<Returns>)], text: &str) -> Finding {
        let tree = tree::tests::tree(text);
        let prototypes: Vec<_> =
            functions.iter().map(|(_, returns)| returns.clone().map(prototype)).collect();
        let functions: Vec<_> = functions.iter().map(|(name, _)| function(name)).collect();
        Finding::new(&tree, &functions, &prototypes).expect("functions of these numbers")
    }

    pub fn ospf() -> Finding {
        let functions = [
            ("ip_rcv", Some(INT)),
            ("ip_rcv_core", Some(Returns::Pointer)),
            ("ip_rcv_finish_core.constprop.0", Some(INT)),
            ("ip_route_input_noref", Some(INT)),
            ("ip_route_input_rcu.part.0", Some(INT)),
            ("ip_check_mc_rcu", Some(INT)),
            ("__icmp_send", Some(Returns::Nothing)),
        ];
        finding(&functions, ">0 >1 <1=5000 >2 >3 >4- >5- <5=0 <4=-22 <3=-22 >6 <6=0 ! <2=1 <0=1")
    }

    fn sentence(finding: &Finding) -> String {
        finding.verdict.sentence()
    }

    #[test]
    fn the_deepest_call_whose_error_was_passed_on_refused_it() {
        let finding = ospf();
        let words = "ip_route_input_rcu refused the packet with EINVAL after ip_check_mc_rcu answered 0";
        assert_eq!(sentence(&finding), words);
        let names: Vec<_> = finding.refusal.iter().map(|(name, _)| &**name).collect();
        let path = ["ip_rcv_finish_core", "ip_route_input_noref", "ip_route_input_rcu", "ip_check_mc_rcu"];
        assert_eq!(names, path);
    }

    #[test]
    fn an_error_that_was_dealt_with_is_no_refusal() {
        let functions = [("drops", Some(INT)), ("route", Some(INT)), ("lookup", Some(INT))];
        let words = "no call below drops refused the packet: drops decided by itself; its last call before was route, which \
             answered 0";
        assert_eq!(sentence(&finding(&functions, ">0 >1 >2- <2=-11 <1=0 ! <0=1")), words);
        let words = "lookup refused the packet with EAGAIN";
        assert_eq!(sentence(&finding(&functions, ">0 >1 >2- <2=-11 <1=-101 ! <0=1")), words);
    }

    #[test]
    fn without_calls_a_function_decides_by_itself() {
        let functions = [("gre_rcv", Some(INT)), ("icmp_send", Some(Returns::Nothing))];
        let words = "no call below gre_rcv refused the packet: gre_rcv decided by itself";
        assert_eq!(sentence(&finding(&functions, ">0 ! <0=1")), words);
        assert_eq!(sentence(&finding(&functions, ">0 >1 <1=0 ! <0=1")), words);
    }

    #[test]
    fn a_last_answer_is_a_no() {
        let functions = [("f", Some(INT)), ("g", Some(INT)), ("is", Some(BOOL)), ("other", None)];
        let words = "g refused the packet with EXDEV after is answered false";
        assert_eq!(sentence(&finding(&functions, ">0 >1 >2- <2=0 <1=-18 ! <0=1")), words);
        let words = "g refused the packet with EXDEV";
        assert_eq!(sentence(&finding(&functions, ">0 >1 >2- <2=1 <1=-18 ! <0=1")), words);
        assert_eq!(sentence(&finding(&functions, ">0 >1 >3- <3=0 <1=-18 ! <0=1")), words);
    }

    #[test]
    fn a_value_of_a_changed_function_counts_if_it_is_passed_on() {
        let functions = [("f", Some(INT)), ("g", Some(INT)), ("h.isra.0", None)];
        let words = "h refused the packet with EXDEV";
        assert_eq!(sentence(&finding(&functions, ">0 >1 >2- <2=-18 <1=-18 ! <0=1")), words);
        let words = "g refused the packet with EXDEV";
        assert_eq!(sentence(&finding(&functions, ">0 >1 >2- <2=-5 <1=-18 ! <0=1")), words);
    }
}
