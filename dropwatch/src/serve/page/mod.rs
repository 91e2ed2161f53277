//! The live page: files that need nothing from elsewhere, events for them, and what rows mean.
//!
//! The page's own policy forbids markup, scripts and styles that are not in these files, so that a name that looks like
//! them does nothing, even if the script were to show it as something other than text.

mod event;

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::{Query, State},
    http::{
        HeaderName, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use serde::Deserialize;
use tokio_stream::{StreamExt as _, wrappers::WatchStream};

use super::Shared;
use crate::{explain, knowledge};

/// What the page may do: load its own script, style and icon, and read from where it is from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// After how long a browser that has lost the connection tries again.
const RETRY: Duration = Duration::from_secs(1);

/// Where each file is, its type, and the file.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
    ("/page.svg", "image/svg+xml", include_str!("page.svg")),
];

/// What the page adds.
pub fn routes() -> Router<Shared> {
    let router = Router::new().route("/events", get(events)).route("/explain", get(meaning));
    FILES.into_iter().fold(router, |router, (path, kind, text)| {
        router.route(path, get(move || async move { file(kind, text) }))
    })
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // Another version may answer next time.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

/// An event for each interval, the present one at once. A client that reads slowly gets fewer.
async fn events(State(shared): State<Shared>) -> Response {
    let Ok(permit) = shared.streams.try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    };
    let mut is_first = true;
    let events = WatchStream::new(shared.published).map(move |published| {
        // Held for as long as there are events.
        let _ = &permit;
        let text = event::text(&published, std::mem::take(&mut is_first));
        Ok::<_, Infallible>(Event::default().event("report").retry(RETRY).data(text))
    });
    // A proxy that collects output would keep events back.
    let headers = [(HeaderName::from_static("x-accel-buffering"), "no"), (CACHE_CONTROL, "no-store")];
    (headers, Sse::new(events).keep_alive(KeepAlive::default())).into_response()
}

/// What is known of a row's drops.
#[derive(Deserialize)]
struct Drops {
    reason: Option<String>,
    function: Option<String>,
    module: Option<String>,
}

async fn meaning(Query(drops): Query<Drops>) -> Response {
    let query = knowledge::Query {
        reason: drops.reason.as_deref(),
        function: drops.function.as_deref(),
        module: drops.module.as_deref(),
    };
    let Some(entry) = knowledge::lookup(query) else {
        return (StatusCode::NOT_FOUND, "nothing is known of this reason in this function\n").into_response();
    };
    let headers = [(CONTENT_TYPE, "application/json"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, explain::json(&[entry])).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn text(path: &str) -> &'static str {
        FILES.iter().find(|(known, ..)| *known == path).expect("a file").2
    }

    /// Each `before`…`"` of a text.
    fn quoted<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    /// The policy would refuse it; and a browser without the network still shows the page.
    #[test]
    fn nothing_is_inline_or_from_elsewhere() {
        let page = text("/");
        for word in [" style=", " onclick=", " onload=", " onerror=", "<style", "javascript:", "//"] {
            assert!(!page.contains(word), "{word}");
        }
        for (script, rest) in page.split("<script").skip(1).map(|rest| rest.split_once('>').expect("its end"))
        {
            assert!(script.contains(" src=\"page.js\"") && rest.starts_with("</script>"), "{script}");
        }
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://"] {
            assert!(!text("/page.js").contains(word), "{word}");
        }
        assert!(!text("/page.css").contains("url(") && !text("/page.css").contains("@import"));
    }

    /// What the page refers to is served, and what the script looks for is in the page.
    #[test]
    fn the_files_fit_together() {
        let page = text("/");
        let known: BTreeSet<_> = FILES.iter().map(|(path, ..)| path.trim_start_matches('/')).collect();
        let others = BTreeSet::from(["metrics", "report"]);
        for name in quoted(page, " src=\"").union(&quoted(page, " href=\"")) {
            assert!(known.contains(name) || others.contains(name), "{name}");
        }
        let ids = quoted(page, " id=\"");
        let used = quoted(text("/page.js"), "byId(\"");
        assert!(used.len() > 5 && used.is_subset(&ids), "{used:?} {ids:?}");
    }
}
