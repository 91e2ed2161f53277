//! HTTP: a thread of its own, so that no client delays a count.

mod connection;
mod host;
mod listen;
mod routes;

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use self::connection::{Patient, Stream};
pub use self::listen::{Listeners, Socket};
use super::{Shared, access::Access, systemd};
use crate::process::privileges::{self, Kept};

/// How many clients are served at a time; others wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// How long the head of a request may take, and the next request of a client that keeps its connection.
const HEAD: Duration = Duration::from_secs(10);
/// How large it may be.
const LARGEST_HEAD: usize = 16 << 10;
/// How many headers it may have.
const MOST_HEADERS: usize = 64;
/// How long clients have at the end to read what they have asked for.
const END: Duration = Duration::from_secs(2);
/// The pause after a failure to accept, which is one of the whole process.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until there is nothing more to publish.
///
/// # Errors
/// There is no thread to be had.
pub fn spawn(
    listeners: Listeners,
    shared: Shared,
    access: Option<Access>,
) -> Result<oneshot::Receiver<Result<()>>> {
    let (done, ended) = oneshot::channel();
    let run = move || {
        let give_up = privileges::give_up_all_but(&Kept::default());
        let result = give_up.and_then(|()| run(&listeners, shared, access));
        // The receiver may be gone; ignore it.
        let _ = done.send(result);
    };
    thread::Builder::new().name("web".into()).spawn(run).context("cannot start a thread")?;
    Ok(ended)
}

fn run(listeners: &Listeners, shared: Shared, access: Option<Access>) -> Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // What blocks is the comparison of passwords, one at a time.
    let runtime =
        runtime.enable_all().max_blocking_threads(1).build().context("cannot start the event loop")?;
    runtime.block_on(serve(listeners, shared, access.map(Arc::new)))
}

async fn serve(listeners: &Listeners, shared: Shared, access: Option<Arc<Access>>) -> Result<()> {
    let clients = Arc::new(GracefulShutdown::new());
    let mut published = shared.published.clone();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    for socket in listeners.sockets()? {
        let server = Server::new(shared.clone(), access.clone(), socket.is_loopback());
        tasks.spawn(accept(Arc::new(server), Arc::clone(&room), Arc::clone(&clients), socket));
    }
    tasks.spawn(systemd::watch(shared));
    systemd::ready();
    // Until the run ends.
    while published.changed().await.is_ok() {}
    systemd::stopping();
    tasks.shutdown().await;
    if let Some(clients) = Arc::into_inner(clients) {
        // Those that still read then are cut off.
        let _ = timeout(END, clients.shutdown()).await;
    }
    Ok(())
}

/// What every connection of a socket needs.
struct Server {
    router: Router,
    access: Option<Arc<Access>>,
}

/// Accepts clients, as many as there is room for.
async fn accept(server: Arc<Server>, room: Arc<Semaphore>, clients: Arc<GracefulShutdown>, socket: Socket) {
    loop {
        // It is never closed.
        let Ok(room) = Arc::clone(&room).acquire_owned().await else { return };
        match socket.accept().await {
            Ok(stream) => {
                let (server, clients) = (Arc::clone(&server), clients.watcher());
                tokio::spawn(async move {
                    server.client(Box::new(Patient::new(stream)), clients).await;
                    drop(room);
                });
            }
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

impl Server {
    /// On a loopback address, only clients of this host are answered.
    fn new(shared: Shared, access: Option<Arc<Access>>, is_loopback: bool) -> Self {
        let router = routes::routes(shared, access.clone());
        Self { router: if is_loopback { host::local_only(router) } else { router }, access }
    }

    /// Serves one client.
    async fn client(&self, stream: Box<dyn Stream>, clients: Watcher) {
        let tls = self.access.as_ref().and_then(|access| access.rules().tls.clone());
        let stream = match tls {
            Some(tls) => match timeout(HEAD, tls.accept(stream)).await {
                Ok(Ok(stream)) => Box::new(stream),
                Ok(Err(error)) => return log::debug!("a connection is not encrypted: {error}"),
                Err(_) => return log::debug!("a client is too slow to encrypt its connection"),
            },
            None => stream,
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD);
        http.max_buf_size(LARGEST_HEAD).max_headers(MOST_HEADERS);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = clients.watch(http.serve_connection(TokioIo::new(stream), service));
        if let Err(error) = connection.await {
            log::debug!("a connection ends: {error}");
        }
    }
}

/// What a client gets that sends these bytes, and then nothing until it is cut off; time is not waited for.
#[cfg(any(test, feature = "fakes"))]
pub fn answer(shared: Shared, access: Option<Access>, is_loopback: bool, request: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let conversation = async {
        let server = Server::new(shared, access.map(Arc::new), is_loopback);
        let (mut client, ours) = tokio::io::duplex(request.len().max(1));
        let clients = GracefulShutdown::new();
        let serving = server.client(Box::new(Patient::new(Box::new(ours))), clients.watcher());
        let asking = async move {
            // What is not accepted is not read to the end.
            let _ = client.write_all(request).await;
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer).await;
            answer
        };
        tokio::join!(serving, asking).1
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).max_blocking_threads(1).build();
    runtime.expect("an event loop").block_on(conversation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::publisher;

    fn answer_to(is_loopback: bool, host: &str) -> String {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = answer(publisher::ended(), None, is_loopback, request.as_bytes());
        String::from_utf8(answer).expect("text")
    }

    /// The only names by which a loopback address is read are its own: others are of web sites that point to it.
    #[test]
    fn a_loopback_address_answers_to_no_name_of_a_site() {
        let refused = answer_to(true, "evil.example:10098");
        assert!(refused.starts_with("HTTP/1.1 403 ") && !refused.contains("dropwatch_build"), "{refused}");
        assert!(refused.contains("Host header must be localhost"), "{refused}");
        for (is_loopback, host) in
            [(true, "localhost:10098"), (true, "127.0.0.1"), (false, "db1.example:10098")]
        {
            let answer = answer_to(is_loopback, host);
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("dropwatch_build"), "{answer}");
        }
    }

    /// Whatever the path.
    #[test]
    fn a_site_reads_nothing() {
        for path in [
            "/",
            "/metrics",
            "/report",
            "/healthz",
            "/events",
            "/explain?reason=NO_SOCKET",
            "/page.js",
            "/none",
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
            let answer =
                String::from_utf8(answer(publisher::ended(), None, true, request.as_bytes())).expect("text");
            assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
        }
    }
}
