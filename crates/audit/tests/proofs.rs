//! Proofs, tiles and cosignatures against implementations that are not ours: what ours makes,
//! theirs accept; what ours refuses, theirs refuse.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_audit::checkpoint::{Checkpoint, CheckpointError, Signed};
use countersign_audit::key::{Handover, KeyError, LogKey, PublicKey, Signer as _, WitnessKey};
use countersign_audit::tiles::{Row, Tiler, TooLong, WIDTH, path};
use countersign_audit::tree::{
    Frontier, Hash, Place, consistency_proof, inclusion_proof, leaf_hash, root, verify_consistency,
    verify_inclusion,
};
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};
use tlog_tiles::{Tile, TileHashReader, TileReader};

/// A log of small records, with every node and every root.
struct Log {
    records: Vec<Vec<u8>>,
    nodes: HashMap<Place, Hash>,
    roots: Vec<Hash>,
}

fn log(size: usize) -> Log {
    let mut log = Log { records: Vec::new(), nodes: HashMap::new(), roots: Vec::new() };
    let mut tree = Frontier::default();
    log.roots.push(tree.root());
    for i in 0..size {
        let record = format!("{{\"record\":{i}}}").into_bytes();
        tree.push(leaf_hash(&record), |place, hash| {
            log.nodes.insert(place, hash);
        });
        log.records.push(record);
        log.roots.push(tree.root());
    }
    log
}

impl Log {
    fn node(&self, place: Place) -> Result<Hash, Infallible> {
        Ok(self.nodes[&place])
    }

    fn root(&self, size: u64) -> Hash {
        self.roots[usize::try_from(size).unwrap()]
    }
}

/// Whether each of the three says that the one tree is the beginning of the other.
fn consistent(old: (u64, Hash), new: (u64, Hash), path: &[Hash]) -> [bool; 3] {
    let ours = verify_consistency((old.0, &old.1), (new.0, &new.1), path);
    let tlog = |hash: Hash| tlog_tiles::Hash(hash);
    let proof = path.iter().copied().map(tlog).collect();
    let theirs = tlog_tiles::check_tree(&proof, new.0, tlog(new.1), old.0, tlog(old.1)).is_ok();
    let tree = |(size, root): (u64, Hash)| RootHash::<Sha256>::new(root.into(), size);
    let proof = ConsistencyProof::try_from_bytes(path.concat()).unwrap();
    [ours, theirs, tree(new).verify_consistency(&tree(old), &proof).is_ok()]
}

fn included(index: u64, new: (u64, Hash), record: &Vec<u8>, path: &[Hash]) -> [bool; 3] {
    let ours = verify_inclusion(index, new.0, leaf_hash(record), path, &new.1);
    let tlog = |hash: Hash| tlog_tiles::Hash(hash);
    let proof = path.iter().copied().map(tlog).collect();
    let leaf = tlog_tiles::record_hash(record);
    let theirs = tlog_tiles::check_record(&proof, new.0, tlog(new.1), index, leaf).is_ok();
    let tree = RootHash::<Sha256>::new(new.1.into(), new.0);
    let proof = InclusionProof::<Sha256>::from_bytes(path.concat());
    [ours, theirs, tree.verify_inclusion(record, index, &proof).is_ok()]
}

#[test]
fn three_implementations_agree_on_every_proof_of_every_small_tree_and_on_damage() {
    let log = log(40);
    let mut refused = 0;
    for new in 1..=40u64 {
        assert_eq!(root(new, |place| log.node(place)).unwrap(), log.root(new));
        for old in 1..=new {
            let (a, b) = ((old, log.root(old)), (new, log.root(new)));
            let path = consistency_proof(old, new, |place| log.node(place)).unwrap().unwrap();
            assert_eq!(consistent(a, b, &path), [true; 3], "{old} {new}");
            let mut bad = vec![
                ((old, [7; 32]), b, path.clone()),
                (a, (new, [7; 32]), path.clone()),
                (a, b, [path.as_slice(), &[[0; 32]]].concat()),
            ];
            for at in 0..path.len() {
                let mut changed = path.clone();
                changed[at][0] ^= 1;
                bad.push((a, b, changed));
                let mut shorter = path.clone();
                shorter.remove(at);
                bad.push((a, b, shorter));
            }
            if old > 1 {
                bad.push(((old - 1, log.root(old)), b, path.clone()));
            }
            for (a, b, path) in bad {
                assert_eq!(consistent(a, b, &path), [false; 3], "{old} {new} {path:?}");
                refused += 1;
            }
            let record = &log.records[usize::try_from(old - 1).unwrap()];
            let path = inclusion_proof(old - 1, new, |place| log.node(place)).unwrap().unwrap();
            assert_eq!(included(old - 1, b, record, &path), [true; 3]);
            assert_eq!(included(old - 1, (new, [7; 32]), record, &path), [false; 3]);
            assert_eq!(included(old - 1, b, &b"other".to_vec(), &path), [false; 3]);
            assert_eq!(included(new, b, record, &path), [false; 3]);
        }
        let empty = consistency_proof(0, new, |place| log.node(place)).unwrap().unwrap();
        let (none, all) = ((0, &log.roots[0]), (new, &log.roots[usize::try_from(new).unwrap()]));
        assert!(empty.is_empty() && verify_consistency(none, all, &empty));
        assert!(!verify_consistency((0, all.1), all, &empty));
        assert!(!verify_consistency(none, all, &[[0; 32]]));
        assert!(!verify_consistency(all, (new - 1, all.1), &[]));
        assert_eq!(consistency_proof(new + 1, new, |place| log.node(place)).unwrap(), None);
    }
    assert!(refused > 5000, "{refused}");
}

type Files = BTreeMap<String, Vec<u8>>;

fn tiles(log: &Log) -> Files {
    let mut files = Files::new();
    let mut tiler = Tiler::default();
    let mut write = |path: &str, bytes: &[u8]| {
        assert!(files.insert(path.to_owned(), bytes.to_vec()).is_none(), "{path} twice");
        Ok::<_, TooLong>(())
    };
    for record in &log.records {
        tiler.record(record, &mut write).unwrap();
    }
    tiler.finish(&mut write).unwrap();
    files
}

/// Serves the files to the foreign client.
struct Host(Files);

impl TileReader for Host {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &Tile| {
            let index = tile.level_index();
            let width = usize::try_from(tile.width()).unwrap();
            self.0[&path(Row::Hashes(tile.level()), index, width)].clone()
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

#[test]
fn a_foreign_client_reads_our_tiles_and_proves_records_from_them() {
    for size in [1, 2, 255, 256, 257, 512, 700, 65_536 + 300] {
        let log = log(size);
        let files = tiles(&log);
        let size = size as u64;
        let width = usize::try_from(size % 256).unwrap();
        if width > 0 {
            let entries = &files[&path(Row::Entries, size / 256, width)];
            let first = &log.records[usize::try_from(size / 256 * 256).unwrap()];
            assert_eq!(entries[..2], u16::try_from(first.len()).unwrap().to_be_bytes());
            assert_eq!(&entries[2..2 + first.len()], first);
        }
        let records: usize = log.records.iter().map(|record| record.len() + 2).sum();
        let stored = files.iter().filter(|(path, _)| path.starts_with("tile/entries/"));
        assert_eq!(stored.map(|(_, bytes)| bytes.len()).sum::<usize>(), records);
        let head = tlog_tiles::Hash(log.root(size));
        let host = Host(files);
        let reader = TileHashReader::new(size, head, &host);
        for index in [0, size / 2, size - 1] {
            let proof = tlog_tiles::prove_record(size, index, &reader).unwrap();
            let ours = inclusion_proof(index, size, |place| log.node(place)).unwrap().unwrap();
            assert_eq!(proof.iter().map(|hash| hash.0).collect::<Vec<_>>(), ours);
        }
        let old = size.div_ceil(3);
        let proof = tlog_tiles::prove_tree(size, old, &reader).unwrap();
        let ours = consistency_proof(old, size, |place| log.node(place)).unwrap().unwrap();
        assert_eq!(proof.iter().map(|hash| hash.0).collect::<Vec<_>>(), ours);
        if size == 1 {
            continue;
        }
        // From a changed tile no proof comes that anybody accepts.
        let mut files = host.0;
        let name = files.keys().find(|path| path.starts_with("tile/0/")).unwrap().clone();
        files.get_mut(&name).unwrap()[32] ^= 1;
        let host = Host(files);
        let reader = TileHashReader::new(size, head, &host);
        if let Ok(proof) = tlog_tiles::prove_record(size, 0, &reader) {
            let proof: Vec<_> = proof.iter().map(|hash| hash.0).collect();
            assert_eq!(included(0, (size, head.0), &log.records[0], &proof), [false; 3]);
        }
    }
}

#[test]
fn tile_paths_are_those_of_the_specification() {
    for (row, index, width, expected) in [
        (Row::Hashes(0), 0, WIDTH, "tile/0/000"),
        (Row::Hashes(3), 5, 17, "tile/3/005.p/17"),
        (Row::Entries, 999, WIDTH, "tile/entries/999"),
        (Row::Entries, 1000, WIDTH, "tile/entries/x001/000"),
        (Row::Hashes(0), 1_234_067, 8, "tile/0/x001/x234/067.p/8"),
    ] {
        assert_eq!(path(row, index, width), expected);
        let Row::Hashes(level) = row else { continue };
        let tile = Tile::new(8, level, index, u32::try_from(width).unwrap(), false);
        assert_eq!(tile.path().replace("tile/8/", "tile/"), expected);
    }
    let long = vec![b' '; 65_536];
    let refused = Tiler::default().record(&long, |_, _| Ok::<_, TooLong>(()));
    assert_eq!(refused, Err(TooLong { seq: 1, len: 65_536 }));
}

fn key(seed: u8) -> LogKey {
    LogKey::from_seed("log.example/test", &[seed; 32]).unwrap()
}

#[test]
fn while_keys_change_a_checkpoint_carries_both_signatures() {
    let keys = Handover { old: key(1), new: key(2) };
    let note = Checkpoint::sign(3, [9; 32], &keys).unwrap();
    for public in [keys.old.public(), keys.new.public()] {
        assert_eq!(Checkpoint::open(&note, public).unwrap().size, 3);
        let verifier = signed_note::StandardVerifier::new(&public.to_string()).unwrap();
        let verifiers = signed_note::VerifierList::new(vec![Box::new(verifier)]);
        let foreign = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
        assert!(foreign.verify(&verifiers).is_ok());
    }
    let stranger = key(3);
    assert!(Checkpoint::open(&note, stranger.public()).is_err());
    // The same signature twice: which one counts is nobody's to choose.
    let line = note.lines().last().unwrap();
    let twice = format!("{note}{line}\n");
    assert_eq!(
        Checkpoint::open(&twice, keys.new.public()),
        Err(CheckpointError::Signature("log.example/test".into()))
    );
}

#[test]
fn cosignatures_of_witnesses_are_read_and_verified() {
    let witness = SigningKey::from_bytes(&[5; 32]);
    let bytes = [&[4], witness.verifying_key().as_bytes().as_slice()].concat();
    let id = Sha256::digest([b"witness.example\n", bytes.as_slice()].concat());
    let text = format!("witness.example+{}+{}", hex::encode(&id[..4]), STANDARD.encode(&bytes));
    let public = WitnessKey::parse(&text).unwrap();
    assert_eq!(public.to_string(), text);
    assert_eq!(PublicKey::parse(&text), Err(KeyError::Type(4)));
    let of_log = key(1).public().to_string();
    assert_eq!(WitnessKey::parse(&of_log), Err(KeyError::Type(1)));
    let note = Checkpoint::sign(3, [9; 32], &key(1)).unwrap();
    let (body, _) = note.split_once("\n\n").unwrap();
    let cosign = |time: u64, body: &str| {
        let signed = format!("cosignature/v1\ntime {time}\n{body}\n");
        let signature = witness.sign(signed.as_bytes()).to_bytes();
        let line = [&id[..4], &time.to_be_bytes(), &signature].concat();
        format!("{note}\u{2014} witness.example {}\n", STANDARD.encode(line))
    };
    let good = Signed::parse(&cosign(1_790_000_000, body)).unwrap();
    assert_eq!(good.cosigned(&public), Ok(1_790_000_000));
    assert!(good.verify(key(1).public()).is_ok());
    let missing = Signed::parse(&note).unwrap();
    assert!(matches!(missing.cosigned(&public), Err(CheckpointError::Unsigned(_))));
    let other = Signed::parse(&cosign(1_790_000_000, "another body\n1\nx")).unwrap();
    assert!(matches!(other.cosigned(&public), Err(CheckpointError::Signature(_))));
    assert!(other.verify(key(1).public()).is_ok());
}

#[test]
fn a_checkpoint_has_one_spelling_even_for_the_holder_of_the_key() {
    let key = key(1);
    let root = STANDARD.encode([9; 32]);
    let note = |text: &str| {
        let signature = countersign_audit::key::Signer::sign(&key, text.as_bytes()).unwrap();
        let line = STANDARD.encode([key.public().id().as_slice(), &signature].concat());
        format!("{text}\n\u{2014} log.example/test {line}\n")
    };
    let good = note(&format!("log.example/test\n3\n{root}\n"));
    assert_eq!(Checkpoint::open(&good, key.public()).unwrap().size, 3);
    for text in [
        "log.example/test\n03\nROOT\n",
        "log.example/test\n+3\nROOT\n",
        "log.example/test\n3\nROOT\nmore\n",
    ] {
        let signed = note(&text.replace("ROOT", &root));
        assert!(matches!(Checkpoint::open(&signed, key.public()), Err(CheckpointError::Form(_))));
    }
}
