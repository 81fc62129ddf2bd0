//! Descriptors that go from one process to another, with a few bytes, over a socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::sys;

/// The most that are sent at once. The kernel's own bound is 253.
pub(super) const MOST: usize = 64;

/// Sends the bytes, at least one, with the descriptors.
pub(super) fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    debug_assert!(!bytes.is_empty() && fds.len() <= MOST, "what the other side can take in");
    let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    // A reader that is gone is an error, not a signal.
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?;
    Ok(())
}

/// The one descriptor that comes with the next byte of a stream. Blocks.
///
/// # Errors
/// The socket's; `InvalidData` if there is none, or more.
pub fn receive_one(socket: impl AsFd) -> io::Result<OwnedFd> {
    let (_, mut handed) = receive(socket, &mut [0])?;
    match (handed.pop(), handed.is_empty()) {
        (Some(fd), true) => Ok(fd),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// One message, and what came with it. Blocks; a length of 0 is the end.
///
/// # Errors
/// The socket's; `InvalidData` for a message that is longer than `buffer`.
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!([RawFd; MOST]);
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<()>(fd, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut handed = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            handed.extend(sys::own(&fds));
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((message.bytes, handed))
}
