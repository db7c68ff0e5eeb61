//! Hands one open descriptor, with a message, to another process over a Unix stream socket (`SCM_RIGHTS`).
//!
//! A stream has no message boundaries, but the kernel never merges bytes sent with a descriptor into bytes sent
//! before it, and a read stops right after the bytes that carried one. So each hand-over is sent in one call and
//! the receiver takes exactly what that call sent, if the message fits its buffer. Messages are therefore bounded.
//!
//! Invariants: `a_descriptor_arrives_with_its_message`, `received_descriptors_are_closed_on_exec`.

#![expect(unsafe_code, reason = "received descriptor numbers become owned descriptors")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// The longest message that may travel with a descriptor, in bytes.
pub const MESSAGE_MAX: usize = 4096;

/// Why a hand-over failed.
#[derive(Debug, thiserror::Error)]
pub enum FdPassError {
    /// Empty, or longer than [`MESSAGE_MAX`].
    #[error("message of {len} bytes beside a descriptor: use 1 to {MESSAGE_MAX}")]
    MessageSize {
        /// Its length.
        len: usize,
    },
    /// The kernel took only a part of it.
    #[error("message beside a descriptor was cut at {sent} of {len} bytes")]
    Cut {
        /// Bytes sent.
        sent: usize,
        /// Bytes wanted.
        len: usize,
    },
    /// The other side closed the socket.
    #[error("socket closed while waiting for a descriptor")]
    Closed,
    /// More descriptors than one, or a message cut short, arrived.
    #[error("expected one descriptor at most, got {count}")]
    Count {
        /// How many.
        count: usize,
    },
    /// The socket failed.
    #[error("{op} descriptor")]
    Socket {
        /// `send` or `receive`.
        op: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Sends `message` and, with it, a duplicate of `fd`. Blocks while the socket is full.
///
/// # Errors
/// [`FdPassError`]; after `Cut` the stream is unusable.
pub fn send(socket: &UnixStream, message: &[u8], fd: BorrowedFd<'_>) -> Result<(), FdPassError> {
    let len = message.len();
    if len == 0 || len > MESSAGE_MAX {
        return Err(FdPassError::MessageSize { len });
    }
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let iov = [IoSlice::new(message)];
    let sent = retry(|| sendmsg::<()>(socket.as_raw_fd(), &iov, &rights, MsgFlags::MSG_NOSIGNAL, None))
        .map_err(|source| FdPassError::Socket { op: "send", source })?;
    if sent == len { Ok(()) } else { Err(FdPassError::Cut { sent, len }) }
}

/// Receives what one call of [`send`], or plain writes, put into the socket: the bytes and the descriptor if one
/// came with them. Blocks until something arrives; set a read timeout on the socket for a deadline.
///
/// # Errors
/// [`FdPassError`]; `Closed` at the end of the stream.
pub fn receive(socket: &UnixStream) -> Result<(Vec<u8>, Option<OwnedFd>), FdPassError> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let (len, mut fds) =
        receive_once(socket, &mut bytes).map_err(|source| FdPassError::Socket { op: "receive", source })?;
    if len == 0 {
        return Err(FdPassError::Closed);
    }
    bytes.truncate(len);
    if fds.len() > 1 {
        return Err(FdPassError::Count { count: fds.len() });
    }
    Ok((bytes, fds.pop()))
}

fn receive_once(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    // Room for one descriptor more than allowed, so that a surplus is seen and closed, not silently cut.
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let mut iov = [IoSliceMut::new(bytes)];
    loop {
        let message =
            match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
                Ok(message) => message,
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel has just installed these numbers in our table for us, and nobody else knows
                // them, so each is open and owned by nobody.
                fds.extend(numbers.into_iter().map(|n| unsafe { OwnedFd::from_raw_fd(n) }));
            }
        }
        return Ok((message.bytes, fds));
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through the wall").unwrap();
        file.rewind().unwrap();
        send(&a, b"first", file.as_fd()).unwrap();
        (&a).write_all(b"plain").unwrap();
        drop(file);

        let (message, fd) = receive(&b).unwrap();
        assert_eq!(message, b"first");
        let mut text = String::new();
        std::fs::File::from(fd.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the wall");
        let (message, fd) = receive(&b).unwrap();
        assert_eq!((message.as_slice(), fd.is_none()), (b"plain".as_slice(), true));
    }

    #[test]
    fn received_descriptors_are_closed_on_exec() {
        let (a, b) = UnixStream::pair().unwrap();
        send(&a, b"x", a.as_fd()).unwrap();
        let fd = receive(&b).unwrap().1.unwrap();
        let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_ne!(flags & nix::libc::FD_CLOEXEC, 0);
    }

    #[test]
    fn a_closed_socket_and_oversized_messages_are_refused() {
        let (a, b) = UnixStream::pair().unwrap();
        assert!(matches!(send(&a, b"", a.as_fd()), Err(FdPassError::MessageSize { len: 0 })));
        assert!(matches!(send(&a, &[0; MESSAGE_MAX + 1], a.as_fd()), Err(FdPassError::MessageSize { .. })));
        drop(a);
        assert!(matches!(receive(&b), Err(FdPassError::Closed)));
    }
}
