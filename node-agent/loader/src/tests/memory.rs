//! A loader that cannot know what it did before.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::fake::build_id;

/// Ways in which a journal cannot be read: an error of the file system, damage, wild length.
const SPOILS: [fn(&Path); 3] = [
    |journal| {
        fs::remove_file(journal).unwrap();
        fs::create_dir(journal).unwrap();
    },
    |journal| fs::write(journal, "{\"order\":").unwrap(),
    |journal| fs::write(journal, vec![b' '; 4 << 20]).unwrap(),
];

/// The two files that the journal is in.
fn files(trial: &Trial) -> [PathBuf; 2] {
    ["journal.a", "journal.b"].map(|name| trial.state.path().join(name))
}

fn remove(journal: &Path) {
    if journal.is_dir() {
        fs::remove_dir(journal).unwrap();
    } else {
        fs::remove_file(journal).unwrap();
    }
}

#[test]
fn a_journal_that_cannot_be_read_stops_everything_until_it_can() {
    for spoil in SPOILS {
        let mut trial = Trial::new();
        let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        trial.settle(2, &one);
        let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
        let journal = files(&trial);
        let good = fs::read(&journal[0]).unwrap();
        for file in &journal {
            spoil(file);
        }
        trial.reboot("boot-2");
        for said in [trial.ask(), trial.apply(3, &two), trial.roll_back(4), trial.hold(5), trial.ask()] {
            assert_eq!((said.state, said.reason), (NodeState::Failed, Some(fault(Fault::JournalUnreadable))));
            assert_eq!((said.level, said.order), (UNPATCHED, None));
        }
        assert_eq!(trial.kernel.loads(), 0);

        // A person brings one of them back.
        for file in &journal {
            remove(file);
        }
        fs::write(&journal[0], good).unwrap();
        assert!(trial.loader.next_tick() <= Duration::from_secs(5));
        trial.kernel.pass(Duration::from_secs(5));
        trial.loader.tick();
        let state = trial.ask();
        assert_eq!((state.state, state.level, state.reason), (NodeState::Settled, Level(1), None));
        assert_eq!(state.order, Some(order("uid", 2)));
        assert_eq!(trial.apply(1, &two).reason, Some(fault(Fault::StaleInstruction)));
    }
}

#[test]
fn a_journal_that_people_gave_up_is_an_empty_one() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    let journal = files(&trial);
    for file in &journal {
        fs::write(file, "{").unwrap();
    }
    trial.restart();
    assert_eq!(trial.apply(2, &bundle).reason, Some(fault(Fault::JournalUnreadable)));
    for file in &journal {
        remove(file);
    }
    trial.kernel.pass(Duration::from_secs(5));
    trial.loader.tick();
    assert_eq!(trial.apply(2, &bundle).state, NodeState::Applied);
}
