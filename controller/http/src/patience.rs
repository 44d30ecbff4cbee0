//! A stream whose other end must say something in time.
//!
//! HTTP/1.1's own limit covers a silent client; an HTTP/2 connection has none before its preface has arrived.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Fails reading if the first byte does not arrive in time; transparent from then on.
#[derive(Debug)]
pub(super) struct Patience<S> {
    stream: S,
    left: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    /// Waits `limit` for the first byte.
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, left: Some(Box::pin(sleep(limit))) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.left = None;
        } else if let Some(left) = &mut self.left
            && left.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_given_up_and_a_talking_one_is_not() {
        let (_silent, end) = tokio::io::duplex(8);
        let failed = Patience::new(end, Duration::from_secs(15)).read_u8().await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);

        let (mut client, end) = tokio::io::duplex(8);
        let mut patient = Patience::new(end, Duration::from_secs(15));
        client.write_all(b"a").await.unwrap();
        assert_eq!(patient.read_u8().await.unwrap(), b'a');
        tokio::time::advance(Duration::from_secs(60)).await;
        client.write_all(b"b").await.unwrap();
        assert_eq!(patient.read_u8().await.unwrap(), b'b');
    }
}
