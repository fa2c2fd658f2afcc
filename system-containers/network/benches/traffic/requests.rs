//! How many requests are answered in a second, each by a connection of its own: what the first packet passes counts.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::topology::{Path, Topology};
use crate::{Rate, now};

pub const PORT: u16 = 8080;

/// For how long questions are asked.
const TIME: Duration = Duration::from_millis(150);

const QUESTION: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.0 204 No Content\r\n\r\n";

/// Answered questions in a second.
pub fn rate(topology: &Topology, path: Path) -> Rate {
    let ends = topology.ends(path);
    let address: std::net::IpAddr = ends.address.parse().expect("the topology has addresses");
    let listener = ends.server.within(|| TcpListener::bind(("0.0.0.0", PORT))).expect("the port is free");
    let server = thread::spawn(move || serve(&listener));
    let rate = ends.client.within(|| ask_for(TIME, SocketAddr::new(address, PORT + ends.offset)));
    let told = ends.client.within(|| TcpStream::connect((address, PORT + ends.offset)));
    // A connection without a question ends the server.
    drop(told.expect("the server listens"));
    server.join().expect("the server does not panic").expect("the server answers");
    rate.expect("every question is answered")
}

fn serve(listener: &TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut question = [0; QUESTION.len()];
        match stream.read_exact(&mut question) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        stream.write_all(ANSWER)?;
        // The client ends the connection.
        let _reset = stream.read(&mut question);
    }
}

fn ask_for(time: Duration, server: SocketAddr) -> Result<Rate> {
    let begin = now();
    let mut answered = 0_u32;
    while begin.0.elapsed() < time {
        let mut stream = TcpStream::connect(server)?;
        stream.write_all(QUESTION)?;
        let mut answer = [0; ANSWER.len()];
        stream.read_exact(&mut answer)?;
        // A reset leaves no port in TIME_WAIT, or they would all be used up.
        setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        answered += 1;
    }
    Ok(Rate::since(begin, f64::from(answered)))
}
