//! The container's terminal: made in its own devpts, its master sent to whoever drives it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::error::{Context, Error, SystemError};
use crate::mounts::attach;
use crate::rootfs::Root;
use crate::spec::Process;
use crate::sys;

/// Makes a terminal in the devpts below `root` (a root to be, or the calling process's own), sends its master to
/// `console` and returns the other side.
pub(crate) fn make(root: BorrowedFd<'_>, process: &Process, console: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let path = "/dev/pts/ptmx";
    // No links: a multiplexer of another devpts would give a terminal of the host's (CVE-2025-52565).
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).on("open", path)?;
    rustix::pty::unlockpt(&master).on("unlockpt", path)?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, peer).on("ioctl TIOCGPTPEER", path)?;
    if let Some(size) = process.console_size {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&terminal, size).on("ioctl TIOCSWINSZ", path)?;
    }
    let uid = rustix::fs::Uid::from_raw(process.user.uid);
    rustix::fs::fchown(&terminal, Some(uid), None).on("chown", "the terminal")?;
    send(console, master.as_fd())?;
    Ok(terminal)
}

/// As runc sends it: one message with the descriptor and a name.
fn send(console: BorrowedFd<'_>, master: BorrowedFd<'_>) -> Result<(), SystemError> {
    let descriptors = [master];
    let rights = SendAncillaryMessage::ScmRights(&descriptors);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(rights) {
        return Err(Errno::NOBUFS).on("sendmsg", "the console socket");
    }
    let name = [IoSlice::new(b"/dev/ptmx")];
    rustix::net::sendmsg(console, &name, &mut control, SendFlags::NOSIGNAL).on("sendmsg", "the console socket")?;
    Ok(())
}

/// Mounts the terminal on /dev/console, which must be a plain file of its own.
pub(crate) fn mount_console(root: &Root, terminal: BorrowedFd<'_>) -> Result<(), Error> {
    let path = "/dev/console";
    let (directory, name) = root.make_parents(path)?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&directory, name, create, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        failed => drop(failed.on("create", path)?),
    }
    let target = root.open_plain(path)?;
    let tree = attach::clone_of(terminal, false, path)?;
    attach::attach(tree.as_fd(), target.as_fd(), path)?;
    Ok(())
}

/// Makes it the controlling terminal and the first three descriptors of the calling session leader, which is about to
/// run its program.
pub(crate) fn take(terminal: BorrowedFd<'_>) -> Result<(), SystemError> {
    sys::exec::control_terminal(terminal).on("ioctl TIOCSCTTY", "the terminal")?;
    for number in 0..3 {
        sys::clone::duplicate_to(terminal, number).on("dup2", "the terminal")?;
    }
    Ok(())
}
