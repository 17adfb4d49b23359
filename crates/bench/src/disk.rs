//! The physical limit: one thread writes whatever is waiting and syncs it with one
//! fdatasync, as a group commit must, and does nothing else.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::{Figures, figures};

/// The file is written beforehand and overwritten round and round, as SQLite does with its
/// write-ahead log: no append to it has to change the file's size.
const FILE_BYTES: u64 = 16 << 20;

pub(crate) struct Bare {
    file: File,
    at: u64,
}

impl Bare {
    pub(crate) fn new(dir: &Path) -> Self {
        let path = dir.join("bare");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path).unwrap();
        let chunk = vec![0x5a; 1 << 20];
        for i in 0..FILE_BYTES >> 20 {
            file.write_all_at(&chunk, i << 20).unwrap();
        }
        file.sync_all().unwrap();
        Self { file, at: 0 }
    }

    pub(crate) fn commit(&mut self, bytes: &[u8]) {
        if self.at + bytes.len() as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at).unwrap();
        self.at += bytes.len() as u64;
        rustix::fs::fdatasync(&self.file).unwrap();
    }
}

/// `callers` threads, each committing `bytes` bytes again and again.
pub(crate) fn group_commits(dir: &Path, callers: usize, bytes: usize, time: Duration) -> Figures {
    let mut bare = Bare::new(dir);
    let record = vec![0x5a; bytes];
    if callers == 1 {
        let start = Instant::now();
        let mut latencies = Vec::new();
        while start.elapsed() < time {
            let begin = Instant::now();
            bare.commit(&record);
            latencies.push(begin.elapsed());
        }
        return figures(latencies, start.elapsed());
    }
    let (requests, waiting) = mpsc::channel::<mpsc::SyncSender<()>>();
    let writer = std::thread::spawn(move || {
        let mut group = Vec::new();
        while let Ok(first) = waiting.recv() {
            group.push(first);
            group.extend(waiting.try_iter());
            bare.commit(&record.repeat(group.len()));
            group.drain(..).for_each(|reply| reply.send(()).unwrap());
        }
    });
    let start = Instant::now();
    let threads: Vec<_> = (0..callers)
        .map(|_| {
            let requests = requests.clone();
            std::thread::spawn(move || {
                let (reply, answer) = mpsc::sync_channel(1);
                let mut latencies = Vec::new();
                while start.elapsed() < time {
                    let begin = Instant::now();
                    requests.send(reply.clone()).unwrap();
                    answer.recv().unwrap();
                    latencies.push(begin.elapsed());
                }
                latencies
            })
        })
        .collect();
    drop(requests);
    let latencies = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    writer.join().unwrap();
    figures(latencies, start.elapsed())
}
