use std::net::UdpSocket;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::message::LENGTH;
use super::*;

/// From 1900 to 1970.
const EPOCH: u64 = 2_208_988_800;

/// What a server whose clock is so many seconds ahead answers.
fn answer(question: &[u8], ahead: i64) -> [u8; LENGTH] {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seconds = (since.as_secs() + EPOCH).wrapping_add_signed(ahead);
    let time = (seconds << 32) + (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    let mut message = [0; LENGTH];
    message[..4].copy_from_slice(&[0x24, 2, 6, 0xec]);
    message[24..32].copy_from_slice(&question[40..48]);
    message[32..40].copy_from_slice(&time.to_be_bytes());
    message[40..48].copy_from_slice(&time.to_be_bytes());
    message
}

/// A server at an address of the loopback that answers with all that `answers` makes of a question. The second value tells of every
/// question.
fn serve(address: &str, port: u16, answers: fn(&[u8]) -> Vec<Vec<u8>>) -> (u16, Receiver<()>) {
    let socket = UdpSocket::bind((address, port)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let (asked, questions) = channel();
    thread::spawn(move || {
        let mut question = [0; 1024];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            if asked.send(()).is_err() {
                return;
            }
            for each in answers(&question[..length]) {
                socket.send_to(&each, from).unwrap();
            }
        }
    });
    (port, questions)
}

fn honest(question: &[u8]) -> Vec<Vec<u8>> {
    vec![answer(question, 1000).to_vec()]
}

/// How many seconds the keeper finds the clock behind.
fn round(keeper: &mut Keeper, servers: &[&str]) -> Option<i64> {
    let servers: Vec<String> = servers.iter().map(|server| (*server).to_owned()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let behind = runtime.block_on(keeper.ask_all(&servers));
    // A second of waiting for the processor is half a second of error.
    behind.map(|microseconds| (microseconds + 5_000_000).div_euclid(10_000_000) * 10)
}

#[test]
fn what_others_say_is_not_taken_for_the_servers_answer() {
    let (port, _questions) = serve("127.0.0.1", 0, |question| {
        let mut forged = answer(question, 500_000_000).to_vec();
        forged[30] ^= 1;
        let mut refusal = forged.clone();
        refusal[1] = 0;
        refusal[12..16].copy_from_slice(b"DENY");
        let long = vec![0xff; 1000];
        vec![vec![], question.to_vec(), forged, refusal, long, honest(question).remove(0)]
    });
    assert_eq!(round(&mut Keeper::new(port), &["127.0.0.1"]), Some(1000));
    // By name, too.
    assert_eq!(round(&mut Keeper::new(port), &["localhost"]), Some(1000));
}

#[test]
fn one_that_lies_is_outvoted() {
    let (port, _questions) = serve("127.0.0.1", 0, honest);
    let lies = |question: &[u8]| vec![answer(question, 500_000_000).to_vec()];
    let _liar = serve("127.0.0.2", port, lies);
    let _other = serve("127.0.0.3", port, honest);
    assert_eq!(round(&mut Keeper::new(port), &["127.0.0.2", "127.0.0.1", "127.0.0.3"]), Some(1000));
}

#[test]
fn a_server_that_refuses_is_not_asked_again() {
    let (port, questions) = serve("127.0.0.1", 0, |question| {
        let mut refusal = answer(question, 0);
        refusal[1] = 0;
        refusal[12..16].copy_from_slice(b"RSTR");
        vec![refusal.to_vec()]
    });
    let mut keeper = Keeper::new(port);
    assert_eq!(round(&mut keeper, &["127.0.0.1"]), None);
    questions.recv().unwrap();
    assert_eq!(round(&mut keeper, &["127.0.0.1"]), None);
    assert!(questions.try_recv().is_err());
}

#[test]
fn a_server_that_is_asked_too_often_is_asked_less_and_a_good_one_ever_less() {
    let (port, _questions) = serve("127.0.0.1", 0, |question| {
        let mut plea = answer(question, 0);
        plea[1] = 0;
        plea[12..16].copy_from_slice(b"RATE");
        vec![plea.to_vec()]
    });
    let mut keeper = Keeper::new(port);
    let mut waits = |server: &str| {
        let rounds: Vec<u64> = (0..6).map(|_| (round(&mut keeper, &[server]), keeper.wait.as_secs()).1).collect();
        keeper.wait = Duration::ZERO;
        rounds
    };
    assert_eq!(waits("127.0.0.1"), [128, 256, 512, 1024, 1024, 1024]);
    let _good = serve("127.0.0.2", port, honest);
    assert_eq!(waits("127.0.0.2"), [64, 128, 256, 512, 1024, 1024]);
    // Nobody there.
    assert_eq!(waits("127.0.0.3"), [16, 32, 64, 128, 256, 512]);
    // No way there: nothing was sent.
    assert_eq!(waits("255.255.255.255"), [4, 8, 16, 16, 16, 16]);
}

#[test]
fn most_of_an_even_number_decide_nothing_but_something_between_them() {
    assert_eq!(middle(vec![]), None);
    assert_eq!(middle(vec![5]), Some(5));
    assert_eq!(middle(vec![9, 5]), Some(5));
    assert_eq!(middle(vec![i64::MAX, 7, i64::MIN, 6]), Some(6));
}
