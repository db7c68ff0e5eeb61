//! One message, at most one descriptor: the channel between daemon, helper, one-shot children and workers.
//!
//! A channel is a pair of `SOCK_SEQPACKET` unix sockets, so that the kernel keeps the boundaries: a message is one JSON
//! value, arrives whole or not at all, and a descriptor that travels with it cannot be taken for another message's.
//! The other end's exit is seen as the end of the channel, also when it was killed.
//!
//! Invariants, each a test below:
//! * `a_message_arrives_whole_with_its_descriptor`.
//! * `a_message_past_the_limit_is_refused_by_its_sender`.
//! * `the_death_of_the_other_end_ends_the_channel`.
//!
//! Not here: what the messages mean. See [`super::protocol`], [`crate::worker`] and [`crate::child`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use holdfast_storage_io::fdpass::{self, FdPassError};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;

/// Longest message in bytes. Below the kernel's default send buffer (212992, `net.core.wmem_default`), since a
/// `SOCK_SEQPACKET` message must fit into it as a whole.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// Why a message did not get through.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other end is gone.
    #[error("channel closed by the other end")]
    Closed,
    /// The socket failed.
    #[error("channel {operation}")]
    Socket {
        /// `send` or `receive`.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A message with a descriptor could not be passed.
    #[error("{operation} descriptor")]
    Descriptor {
        /// `send` or `receive`.
        operation: &'static str,
        /// Why.
        #[source]
        source: FdPassError,
    },
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    #[error("message of {bytes} bytes is over the channel's limit of {MESSAGE_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The message is not what this end expects.
    #[error("message not understood")]
    Malformed(#[source] serde_json::Error),
}

/// A message with the descriptor that came with it, if one did.
pub type Received<T> = (T, Option<OwnedFd>);

type Packet = (Vec<u8>, Option<OwnedFd>);

/// Makes two connected ends, both close-on-exec.
///
/// # Errors
/// What `socketpair(2)` says.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// One end for synchronous processes.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
}

impl Channel {
    /// An end that waits.
    ///
    /// # Errors
    /// What `fcntl(2)` says.
    pub fn blocking(end: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(end);
        socket.set_nonblocking(false)?;
        Ok(Self { socket })
    }

    /// An end that never waits: [`Self::try_send`] and [`Self::try_receive`] say `None` instead.
    ///
    /// # Errors
    /// What `fcntl(2)` says.
    pub fn nonblocking(end: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(end);
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// The end that this process was started with as its standard input, waiting.
    ///
    /// # Errors
    /// When there is none, or it cannot be duplicated.
    pub fn inherited() -> io::Result<Self> {
        Self::blocking(io::stdin().as_fd().try_clone_to_owned()?)
    }

    /// Sends, waiting for room.
    ///
    /// # Errors
    /// [`WireError`]; nothing was sent then.
    pub fn send<T: Serialize>(&self, message: &T, fd: Option<BorrowedFd<'_>>) -> Result<(), WireError> {
        match send(&self.socket, &encode(message)?, fd)? {
            Some(()) => Ok(()),
            None => Err(would_block("send")),
        }
    }

    /// Sends if there is room now; `None` if there is not.
    ///
    /// # Errors
    /// [`WireError`]; nothing was sent then.
    pub fn try_send<T: Serialize>(
        &self,
        message: &T,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Option<()>, WireError> {
        send(&self.socket, &encode(message)?, fd)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// [`WireError::Closed`] at the end of the channel; after [`WireError::Malformed`] the next message can be read.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Received<T>, WireError> {
        self.try_receive()?.ok_or_else(|| would_block("receive"))
    }

    /// The next message if it is there already.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn try_receive<T: DeserializeOwned>(&self) -> Result<Option<Received<T>>, WireError> {
        receive(&self.socket)?.map(decode).transpose()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One end for the daemon and for job workers. Both directions may be used at once, each by one task.
#[derive(Debug)]
pub struct AsyncChannel {
    /// Tells when to try; the runtime's type knows nothing of packets and descriptors.
    ready: tokio::net::UnixStream,
    /// The same socket.
    socket: UnixStream,
}

impl AsyncChannel {
    /// Registers an end with the current runtime.
    ///
    /// # Errors
    /// When the end cannot be made non-blocking or registered.
    pub fn new(end: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(end);
        socket.set_nonblocking(true)?;
        Ok(Self { ready: tokio::net::UnixStream::from_std(socket.try_clone()?)?, socket })
    }

    /// Sends. Cancel-safe: the message was sent whole or not at all.
    ///
    /// # Errors
    /// [`WireError`]; nothing was sent then.
    pub async fn send<T: Serialize>(&self, message: &T) -> Result<(), WireError> {
        let bytes = encode(message)?;
        self.attempt("send", Interest::WRITABLE, || send(&self.socket, &bytes, None)).await
    }

    /// Waits for the next message. Cancel-safe: a message is taken off the channel only to be returned.
    ///
    /// # Errors
    /// [`WireError::Closed`] at the end of the channel; after [`WireError::Malformed`] the next message can be read.
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<Received<T>, WireError> {
        decode(self.attempt("receive", Interest::READABLE, || receive(&self.socket)).await?)
    }

    /// Tries whenever the socket is ready, until `call` says something else than "not now".
    async fn attempt<T>(
        &self,
        operation: &'static str,
        interest: Interest,
        mut call: impl FnMut() -> Result<Option<T>, WireError>,
    ) -> Result<T, WireError> {
        loop {
            let tried = self.ready.ready(interest).await.and_then(|_| {
                self.ready.try_io(interest, || match call() {
                    Ok(Some(value)) => Ok(Ok(value)),
                    Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
                    Err(err) => Ok(Err(err)),
                })
            });
            match tried {
                Ok(result) => return result,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => return Err(WireError::Socket { operation, source }),
            }
        }
    }
}

fn would_block(operation: &'static str) -> WireError {
    WireError::Socket { operation, source: io::ErrorKind::WouldBlock.into() }
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let bytes = serde_json::to_vec(message).expect("our messages hold only string keys and finite numbers");
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

fn decode<T: DeserializeOwned>((bytes, fd): Packet) -> Result<Received<T>, WireError> {
    Ok((serde_json::from_slice(&bytes).map_err(WireError::Malformed)?, fd))
}

fn send(socket: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<Option<()>, WireError> {
    let sent = match fd {
        Some(fd) => fdpass::send(socket, bytes, fd),
        None => plain_send(socket, bytes),
    };
    settle("send", sent)
}

fn plain_send(socket: &UnixStream, bytes: &[u8]) -> Result<(), FdPassError> {
    match retry(|| socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)) {
        Ok(_) => Ok(()),
        Err(errno) => Err(FdPassError::Socket { op: "send", source: errno.into() }),
    }
}

fn receive(socket: &UnixStream) -> Result<Option<Packet>, WireError> {
    settle("receive", receive_once(socket))
}

/// `MSG_PEEK | MSG_TRUNC` tells a packet's whole length first (recv(2)): a long one never carries a descriptor.
fn receive_once(socket: &UnixStream) -> Result<Packet, FdPassError> {
    let failed = |errno: nix::Error| FdPassError::Socket { op: "receive", source: errno.into() };
    let length =
        retry(|| socket::recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC))
            .map_err(failed)?;
    match length {
        0 => Err(FdPassError::Closed),
        1..=fdpass::MESSAGE_MAX => fdpass::receive(socket),
        _ => {
            let mut bytes = vec![0; length.min(MESSAGE_BYTES_MAX)];
            let length =
                retry(|| socket::recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())).map_err(failed)?;
            bytes.truncate(length);
            Ok((bytes, None))
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => {}
            other => return other,
        }
    }
}

/// Tells "not now" and "the other end is gone" from failures.
fn settle<T>(operation: &'static str, result: Result<T, FdPassError>) -> Result<Option<T>, WireError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(FdPassError::Closed) => Err(WireError::Closed),
        Err(FdPassError::Socket { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(FdPassError::Socket { source, .. }) if is_closed(&source) => Err(WireError::Closed),
        Err(FdPassError::Socket { source, .. }) => Err(WireError::Socket { operation, source }),
        Err(
            err @ (FdPassError::MessageSize { .. } | FdPassError::Cut { .. } | FdPassError::Count { .. }),
        ) => Err(WireError::Descriptor { operation, source: err }),
    }
}

/// The other end went away: with a message of ours unread it is a reset, else a broken pipe.
fn is_closed(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;

    use super::*;

    fn ends() -> (Channel, Channel) {
        let (one, other) = pair().unwrap();
        (Channel::blocking(one).unwrap(), Channel::blocking(other).unwrap())
    }

    #[test]
    fn a_message_arrives_whole_with_its_descriptor() {
        let (one, other) = ends();
        let file = File::open("/proc/self/stat").unwrap();
        one.send(&"first", None).unwrap();
        one.send(&"second", Some(file.as_fd())).unwrap();
        one.send(&"x".repeat(100_000), None).unwrap();
        assert!(matches!(other.receive::<String>().unwrap(), (text, None) if text == "first"));
        let (text, fd) = other.receive::<String>().unwrap();
        assert_eq!(text, "second");
        assert!(matches!(other.receive::<String>().unwrap(), (text, None) if text.len() == 100_000));
        let mut content = String::new();
        File::from(fd.unwrap()).read_to_string(&mut content).unwrap();
        assert!(content.starts_with(&std::process::id().to_string()));
    }

    #[test]
    fn a_message_past_the_limit_is_refused_by_its_sender() {
        let (one, other) = ends();
        let long = "x".repeat(MESSAGE_BYTES_MAX);
        assert!(matches!(one.send(&long, None), Err(WireError::TooLong { .. })));
        one.send(&"short", None).unwrap();
        assert_eq!(other.receive::<String>().unwrap().0, "short");
    }

    #[test]
    fn a_message_that_is_not_understood_does_not_end_the_channel() {
        let (one, other) = ends();
        one.send(&"text", None).unwrap();
        one.send(&7, None).unwrap();
        assert!(matches!(other.receive::<u32>(), Err(WireError::Malformed(_))));
        assert_eq!(other.receive::<u32>().unwrap().0, 7);
    }

    #[test]
    fn the_death_of_the_other_end_ends_the_channel() {
        let (one, other) = ends();
        one.send(&1, None).unwrap();
        drop(one);
        assert_eq!(other.receive::<u32>().unwrap().0, 1, "what was sent before is still delivered");
        assert!(matches!(other.receive::<u32>(), Err(WireError::Closed)));
        assert!(matches!(other.send(&1, None), Err(WireError::Closed)));
    }

    #[tokio::test]
    async fn both_kinds_of_end_understand_each_other() {
        let (one, other) = pair().unwrap();
        let (sync, tokio) = (Channel::blocking(one).unwrap(), AsyncChannel::new(other).unwrap());
        tokio.send(&1).await.unwrap();
        assert_eq!(sync.receive::<u32>().unwrap().0, 1);
        sync.send(&2, None).unwrap();
        assert_eq!(tokio.receive::<u32>().await.unwrap().0, 2);
        drop(sync);
        assert!(matches!(tokio.receive::<u32>().await, Err(WireError::Closed)));
    }
}
