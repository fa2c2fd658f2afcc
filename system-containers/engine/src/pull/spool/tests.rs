//! The window and the file, together and with others of their image.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::*;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

fn spool() -> (tempfile::TempDir, Arc<Spool>) {
    let (directory, [spool]) = spools();
    (directory, spool)
}

/// Of one image.
fn spools<const COUNT: usize>() -> (tempfile::TempDir, [Arc<Spool>; COUNT]) {
    let directory = tempfile::tempdir().unwrap();
    let handle = File::open(directory.path()).unwrap();
    let demand: Arc<Demand> = Arc::default();
    let spools = std::array::from_fn(|_| Spool::new(handle.as_fd(), Room::default(), Arc::clone(&demand)).unwrap());
    (directory, spools)
}

/// Appends so many MiB.
async fn fill(spool: &Spool, count: u8) {
    for number in 0..count {
        for _ in 0..16 {
            spool.append(&[number; 64 << 10]).await.unwrap();
        }
    }
    spool.finish(true);
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn filled(count: u8) -> Vec<u8> {
    (0..count).flat_map(|number| vec![number; 1 << 20]).collect()
}

#[test]
fn a_reader_waits_for_what_comes() {
    let (_directory, spool) = spool();
    let mut reader = Reader::new(Arc::clone(&spool));
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            content
        });
        wait(fill(&spool, 9));
        assert_eq!(reading.join().unwrap(), filled(9));
    });
}

#[test]
fn what_a_reader_follows_is_never_in_the_file() {
    let (_directory, spool) = spool();
    let mut reader = Reader::new(Arc::clone(&spool));
    for number in 0..9 {
        let part = [number; WINDOW_BYTES / 2];
        wait(spool.append(&part)).unwrap();
        wait(spool.append(&part)).unwrap();
        assert_eq!(reader.fill_buf().unwrap(), [number; WINDOW_BYTES]);
        reader.consume(WINDOW_BYTES);
    }
    assert_eq!(spool.file.metadata().unwrap().blocks(), 0);
    drop(reader);
    assert_eq!(spool.lock().window.capacity(), 0, "there may be hundreds of them");
}

#[test]
fn a_part_larger_than_the_room_that_is_left_wakes_the_reader() {
    let (_directory, spool) = spool();
    let mut reader = Reader::new(Arc::clone(&spool));
    let large = vec![7; 600 << 10];
    wait(async {
        spool.append(&large[..100 << 10]).await.unwrap();
        let mut appending = pin!(spool.append(&large));
        let mut read = 0;
        while poll_fn(|context| Poll::Ready(appending.as_mut().poll(context).is_pending())).await {
            assert!(spool.lock().is_ready());
            read += reader.fill_buf().unwrap().len();
            reader.consume(WINDOW_BYTES);
        }
        assert!(read > 400 << 10);
    });
    assert_eq!(spool.file.metadata().unwrap().blocks(), 0);
}

#[test]
fn what_comes_before_its_turn_is_in_the_file_and_given_back() {
    let (_directory, spool) = spool();
    wait(fill(&spool, 9));
    let mut content = Vec::new();
    Reader::new(Arc::clone(&spool)).read_to_end(&mut content).unwrap();
    assert_eq!(content, filled(9));
    assert!(spool.file.metadata().unwrap().blocks() * 512 < 5 << 20, "two pieces of 4 MiB were given back");
}

#[test]
fn a_reader_that_comes_late_catches_up() {
    let (_directory, spool) = spool();
    // Less than a reader wakes for.
    wait(spool.append(&[1; BUFFER_BYTES + 1])).unwrap();
    let early = spool.file.metadata().unwrap().blocks();
    let mut reader = Reader::new(Arc::clone(&spool));
    let mut content = Vec::new();
    for _ in 0..9 {
        wait(async {
            let mut appending = pin!(spool.append(&[2; BUFFER_BYTES]));
            while poll_fn(|context| Poll::Ready(appending.as_mut().poll(context).is_pending())).await {
                assert!(spool.lock().is_ready(), "else both would wait");
                let part = reader.fill_buf().unwrap();
                content.extend_from_slice(part);
                let length = part.len();
                reader.consume(length);
            }
        });
    }
    assert_eq!(spool.file.metadata().unwrap().blocks(), early, "the rest came by the window");
    spool.finish(true);
    reader.read_to_end(&mut content).unwrap();
    let (early, late) = content.split_at(BUFFER_BYTES + 1);
    assert!(early.iter().all(|byte| *byte == 1) && late == [2; 9 * BUFFER_BYTES]);
}

#[test]
fn a_registry_does_not_wait_for_a_reader_that_stands_still() {
    let (_directory, spool) = spool();
    let mut reader = Reader::new(Arc::clone(&spool));
    wait(async {
        for number in 0..4 {
            spool.append(&[number; BUFFER_BYTES]).await.unwrap();
        }
        assert!(spool.file.metadata().unwrap().blocks() > 0);
        assert_eq!(reader.fill_buf().unwrap().len(), WINDOW_BYTES);
        // There is room in the window, but not yet its turn.
        spool.append(&[4; BUFFER_BYTES]).await.unwrap();
    });
    spool.finish(true);
    let mut content = Vec::new();
    reader.read_to_end(&mut content).unwrap();
    assert!(content.chunks(BUFFER_BYTES).zip(0..).all(|(part, number)| part == [number; BUFFER_BYTES]));
    assert_eq!(content.len(), 5 * BUFFER_BYTES);
}

/// Of the spools of an image, the first comes faster than it is read. `then` may change that; whether the second, which has
/// come as far as it may, goes on at once.
fn goes_on(then: impl FnOnce(Reader, &Arc<Spool>) -> Vec<Reader>) -> bool {
    let (_directory, [first, second]) = spools();
    let reader = Reader::new(Arc::clone(&first));
    wait(async {
        for _ in 0..8 {
            second.append(&[2; BUFFER_BYTES]).await.unwrap();
        }
        for _ in 0..2 {
            first.append(&[1; BUFFER_BYTES]).await.unwrap();
        }
        let mut full = pin!(first.append(b"more"));
        assert!(poll_fn(|context| Poll::Ready(full.as_mut().poll(context).is_pending())).await);
        let mut appending = pin!(second.append(b"more"));
        assert!(poll_fn(|context| Poll::Ready(appending.as_mut().poll(context).is_pending())).await);
        let _kept = then(reader, &second);
        poll_fn(|context| Poll::Ready(appending.as_mut().poll(context).is_ready())).await
    })
}

#[test]
fn what_nobody_waits_for_is_held_back() {
    assert!(!goes_on(|reader, _| vec![reader]));
    assert!(goes_on(|_, _| Vec::new()), "the reader has ended");
    let follow = |reader, second: &_| {
        let mut own = Reader::new(Arc::clone(second));
        own.read_exact(&mut [0; 8 * BUFFER_BYTES]).unwrap();
        vec![reader, own]
    };
    assert!(goes_on(follow), "it has one of its own");
}

#[test]
fn who_waits_for_a_layer_wants_the_others_too() {
    let (_directory, [first, second]) = spools();
    let mut reader = Reader::new(Arc::clone(&first));
    first.demand.meet();
    std::thread::scope(|scope| {
        scope.spawn(move || reader.fill_buf().unwrap().len());
        let risen = second.demand.wait_while(|| true);
        let risen = wait(async { tokio::time::timeout(Duration::from_mins(1), risen).await });
        first.finish(true);
        risen.unwrap();
    });
}

#[test]
fn what_is_held_back_comes_slowly() {
    let (_directory, [_, second]) = spools();
    second.demand.meet();
    wait(fill(&second, 5));
    assert_eq!(second.lock().allowed, 2 * AHEAD_BYTES, "and freely once nobody has had too much for a while");
}

#[test]
fn what_is_not_verified_has_no_end() {
    let (_directory, spool) = spool();
    wait(spool.append(b"abc")).unwrap();
    spool.finish(false);
    let mut content = Vec::new();
    let error = Reader::new(spool).read_to_end(&mut content).unwrap_err();
    assert_eq!((content.as_slice(), error.to_string().as_str()), (&b"abc"[..], "the download failed"));
}
