//! What becomes of drops that passed a filter because the kernel did not know all that decides.

use std::collections::HashSet;

use aya::maps::{self, MapData};
use dropwatch_common::{DropKey, kind::UNICAST};

use crate::{
    filter::{
        Filter,
        assume::{self, Decision},
        cases::{Answers, Cases},
    },
    kernel::{classes::Classes, namespaces::Namespaces, owners::Owners},
    model::{belonging::Owned, class::Class, foreign::Foreign, socket::Socket},
    probe::source::{Belongs, Cause, Decide, FindSocket, Question},
};

/// What is known here and not in the kernel.
pub struct Known {
    /// The names of network namespaces.
    pub namespaces: Namespaces,
    /// What drops are worth, if the filter needs it.
    pub classes: Option<Teller>,
    /// Whose sockets are, if the filter needs it.
    pub owners: Option<Owners>,
}

/// Says what becomes of drops; none for a filter that the kernel decides by alone.
#[must_use]
pub fn decider(filter: &Filter, known: Known) -> Option<Decide> {
    let cases = filter.cases().clone();
    let wanted: Vec<_> = assume::names(filter.expression()).into_iter().map(str::to_owned).collect();
    if wanted.is_empty() && !cases.ask() {
        return None;
    }
    let Known { namespaces, mut classes, owners } = known;
    Some(Box::new(move |questions, find_socket| {
        let in_question: Vec<_> = questions.iter().filter_map(|question| question.namespace).collect();
        if !in_question.is_empty() {
            // The drops have happened: names that were there are seen now.
            namespaces.refresh();
            // A name that a namespace was given is no container's. To look takes longer than some names are there.
            if !wanted.iter().all(|name| namespaces.is_given(name)) {
                namespaces.look_into(&in_question);
            }
        }
        // A namespace that has gone unseen may have been of another container of that name.
        let may_be_missed =
            wanted.iter().any(|name| !namespaces.is_given(name) && namespaces.has_container(name));
        let decide = |question: &Question| {
            let known =
                question.namespace.filter(|namespace| !may_be_missed || namespaces.is_known(*namespace));
            let names: Option<Vec<Foreign>> = known.map(|namespace| namespaces.names(namespace));
            let has_name = |name: &str| names.iter().flatten().any(|known| *known == *name);
            let class =
                question.cause.zip(classes.as_mut()).map(|(cause, classes)| classes.class(&cases, cause));
            let belong = question.socket.map(|socket| belongs(&cases, socket, owners.as_ref(), find_socket));
            let answers = Answers {
                has_name: names.as_ref().map(|_| &has_name as _),
                class,
                belong: belong.as_deref().unwrap_or_default(),
            };
            cases.decide(question.passed, answers)
        };
        questions.iter().map(decide).collect::<Vec<Decision>>()
    }))
}

/// Whether drops belong to each that the filter names.
fn belongs(
    cases: &Cases,
    socket: Belongs,
    owners: Option<&Owners>,
    find: FindSocket<'_>,
) -> Vec<Option<bool>> {
    let known = match (socket, owners) {
        (Belongs::ToNone, _) => return vec![Some(false); cases.belongings().len()],
        (Belongs::To(number), Some(owners)) => find(number).map(|socket| owned(owners, &socket)),
        (Belongs::To(_) | Belongs::Unknown, _) => None,
    };
    cases.belongings().iter().map(|to| to.means(known.as_ref()?)).collect()
}

/// Whose a socket is.
fn owned(owners: &Owners, socket: &Socket) -> Owned {
    let container = owners.container(socket);
    let is_container_known = container.is_some() || socket.has_no_container();
    Owned { process: owners.owner(socket), container, is_container_known }
}

/// Knows what drops are worth, and tells the kernel, which decides by itself from then on.
pub struct Teller {
    classes: Classes,
    possible: maps::HashMap<MapData, DropKey, u64>,
    /// Places and reasons that the kernel was told about, or cannot be.
    told: HashSet<(u64, u32)>,
}

impl Teller {
    /// One that has told nothing.
    #[must_use]
    pub fn new(classes: Classes, possible: maps::HashMap<MapData, DropKey, u64>) -> Self {
        Self { classes, possible, told: HashSet::new() }
    }

    fn class(&mut self, cases: &Cases, cause: Cause) -> Class {
        let Cause { location, reason, destination } = cause;
        if self.told.insert((location, reason))
            && let Some(class) = self.classes.of_all(location, reason)
        {
            let key = DropKey { location, reason, kind: UNICAST.into() };
            // Without room for it, it is decided here.
            let _ = self.possible.insert(key, u64::from(cases.of_class(class)), 0);
        }
        self.classes.of(location, reason, destination)
    }
}
