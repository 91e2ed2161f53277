//! A connection to a client that may be slow, but not for ever.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long a client may leave something unread that fills the socket's buffer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A stream both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream whose writes fail once something has waited for the reader too long. A few bytes read now and then do not
/// make it wait longer: what counts is that a write has been taken whole.
pub struct Patient {
    stream: Box<dyn Stream>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// Over another stream.
    pub fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, waiting: None }
    }

    fn judge(
        &mut self,
        written: Poll<io::Result<usize>>,
        wanted: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(taken)) if taken < wanted => {}
            Poll::Ready(_) => {
                self.waiting = None;
                return written;
            }
            Poll::Pending => {}
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => written,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, bytes.len(), context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(written, slices.iter().map(|slice| slice.len()).sum(), context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().expect("an event loop").block_on(test);
    }

    #[test]
    fn a_client_that_reads_nothing_is_cut_off() {
        run(async {
            let (ours, _theirs) = duplex(64);
            let mut stream = Patient::new(Box::new(ours));
            let error = stream.write_all(&[0; 1000]).await.expect_err("nobody reads");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_client_that_reads_a_byte_now_and_then_is_cut_off_as_well() {
        run(async {
            let (ours, mut theirs) = duplex(64);
            let mut stream = Patient::new(Box::new(ours));
            let trickle = tokio::spawn(async move {
                let mut read = 0;
                while theirs.read_exact(&mut [0]).await.is_ok() {
                    read += 1;
                    sleep(Duration::from_secs(1)).await;
                }
                read
            });
            let error = stream.write_all(&[0; 1000]).await.expect_err("too slow");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            drop(stream);
            assert!(trickle.await.expect("a task") < 100);
        });
    }

    #[test]
    fn a_client_that_reads_is_waited_for_each_time() {
        run(async {
            let (ours, mut theirs) = duplex(64);
            let mut stream = Patient::new(Box::new(ours));
            let reader = tokio::spawn(async move {
                for _ in 0..10 {
                    sleep(PATIENCE / 2).await;
                    theirs.read_exact(&mut [0; 100]).await.expect("bytes");
                }
            });
            for _ in 0..10 {
                stream.write_all(&[0; 100]).await.expect("written");
            }
            reader.await.expect("a task");
        });
    }
}
