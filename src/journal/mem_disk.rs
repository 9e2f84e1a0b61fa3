//! In-memory disk that fills up, fails, dies at any operation and loses what was not synced. Tests use it, and the
//! simulator through its [`super::MemoryJournal`].

use std::{
    collections::BTreeMap,
    io::{self, Read},
    ops::Range,
    path::Path,
    sync::Arc,
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

#[derive(Clone, Default)]
struct Inode {
    seen: Vec<u8>,
    synced: Vec<u8>,
    dirty: Vec<Range<usize>>,
}

/// Change of file names since the names were last synced.
#[derive(Clone)]
enum Step {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
}

/// Operation that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Rename,
    Remove,
    SyncNames,
    Write,
    SetLen,
    Sync,
}

#[derive(Clone, Default)]
pub(super) struct DiskState {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    steps: Vec<Step>,
    /// Operations until the machine dies; none for never. A write that dies has written half of its octets.
    pub(super) life: Option<u64>,
    /// Octets that can still be written; none for no limit.
    pub(super) room: Option<usize>,
    /// Number of the next syncs that fail.
    pub(super) bad_syncs: u32,
    /// Number of the next syncs of names that fail.
    pub(super) bad_name_syncs: u32,
    /// True if files cannot be removed.
    pub(super) no_removes: bool,
    pub(super) operations: u64,
    /// Operation that fails, with the error number of the system (errno).
    #[cfg(test)]
    pub(super) fails: Option<(Operation, i32)>,
    /// True while no operation that changes something returns.
    hangs: bool,
    /// Number of operations that are blocked by that.
    pub(super) waiting: usize,
}

/// Part of the unsynced changes that survives a crash.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "the simulator only tears; the tests do all of it"))]
pub(super) enum CrashOutcome {
    /// All: the process died, but not the machine.
    Everything,
    /// Nothing.
    Nothing,
    /// The names, but no octets.
    Names,
    /// The octets, but no names.
    Octets,
    /// The first half of the changes of names, and the first half of each write, with zeros for the rest.
    Half,
    /// The octets, and only the last change of names: without a sync the disk may apply changes in any order.
    LastStep,
    /// The names, and of the octets of each unsynced write this share (in 65536ths).
    Torn(u16),
}

#[cfg(test)]
pub(super) const ALL_LEAVES: [CrashOutcome; 6] = [
    CrashOutcome::Everything,
    CrashOutcome::Nothing,
    CrashOutcome::Names,
    CrashOutcome::Octets,
    CrashOutcome::Half,
    CrashOutcome::LastStep,
];

#[derive(Clone, Default)]
pub(super) struct MemDisk(Arc<Machine>);

#[derive(Default)]
struct Machine {
    world: Mutex<DiskState>,
    /// Signals that the disk answers again.
    answers: Condvar,
}

impl DiskState {
    fn operate(&mut self, operation: Operation) -> io::Result<()> {
        self.operations += 1;
        #[cfg(test)]
        if let Some((_, errno)) = self.fails.filter(|(fails, _)| *fails == operation) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        #[cfg(not(test))]
        let _ = operation;
        match &mut self.life {
            Some(0) => Err(io::Error::other("dead")),
            Some(life) => {
                *life -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn step(&mut self, step: Step) {
        apply(&mut self.names, &step);
        self.steps.push(step);
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Number of octets of an unsynced write of `len` that survive.
pub(super) fn torn(len: usize, share: u16) -> usize {
    (len * usize::from(share)).div_ceil(1 << 16)
}

fn apply(names: &mut BTreeMap<String, usize>, step: &Step) {
    match step {
        Step::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode)
        }
        Step::Link(name, inode) => names.insert(name.clone(), *inode),
        Step::Unlink(name) => names.remove(name),
    };
}

impl MemDisk {
    pub(super) fn world(&self) -> MutexGuard<'_, DiskState> {
        self.0.world.lock()
    }

    /// State of the disk, once it answers.
    fn answering(&self) -> MutexGuard<'_, DiskState> {
        let mut world = self.world();
        world.waiting += 1;
        while world.hangs {
            self.0.answers.wait(&mut world);
        }
        world.waiting -= 1;
        world
    }

    /// Makes all operations that change something block, or lets them go on.
    #[cfg(test)]
    pub(super) fn hang(&self, hangs: bool) {
        self.world().hangs = hangs;
        self.0.answers.notify_all();
    }

    /// Disk as the next start finds it.
    pub(super) fn after_crash(&self, leaves: CrashOutcome) -> Self {
        let world = self.world().clone();
        let mut names = world.synced_names.clone();
        let all = world.steps.len();
        let steps = match leaves {
            CrashOutcome::Everything | CrashOutcome::Names | CrashOutcome::Torn(_) => 0..all,
            CrashOutcome::Nothing | CrashOutcome::Octets => 0..0,
            CrashOutcome::Half => 0..all / 2,
            CrashOutcome::LastStep => all.saturating_sub(1)..all,
        };
        world.steps[steps].iter().for_each(|step| apply(&mut names, step));
        let inodes = world.inodes.iter().map(|inode| {
            let octets = match leaves {
                CrashOutcome::Everything | CrashOutcome::Octets | CrashOutcome::LastStep => inode.seen.clone(),
                CrashOutcome::Nothing | CrashOutcome::Names => inode.synced.clone(),
                CrashOutcome::Half => {
                    let mut octets = inode.synced.clone();
                    octets.resize(inode.seen.len().max(octets.len()), 0);
                    for dirty in &inode.dirty {
                        let half = dirty.start..dirty.start + dirty.len() / 2;
                        if let Some(new) = inode.seen.get(half.clone()) {
                            octets[half].copy_from_slice(new);
                        }
                    }
                    octets
                }
                CrashOutcome::Torn(share) => {
                    let mut octets = inode.synced.clone();
                    for dirty in &inode.dirty {
                        let end = dirty.start + torn(dirty.len(), share);
                        octets.resize(octets.len().max(end), 0);
                        octets[dirty.start..end].copy_from_slice(&inode.seen[dirty.start..end]);
                    }
                    octets
                }
            };
            Inode { synced: octets.clone(), seen: octets, dirty: Vec::new() }
        });
        let inodes = inodes.collect();
        let world = DiskState { inodes, synced_names: names.clone(), names, ..DiskState::default() };
        Self(Arc::new(Machine { world: Mutex::new(world), answers: Condvar::new() }))
    }

    #[cfg(test)]
    pub(super) fn octets(&self, name: &str) -> Vec<u8> {
        let world = self.world();
        world.inodes[world.find(name).unwrap()].seen.clone()
    }

    #[cfg(test)]
    pub(super) fn set(&self, name: &str, octets: &[u8]) {
        let mut world = self.world();
        world.inodes.push(Inode { seen: octets.to_vec(), synced: octets.to_vec(), dirty: Vec::new() });
        let inode = world.inodes.len() - 1;
        world.names.insert(name.into(), inode);
        world.synced_names.insert(name.into(), inode);
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<String> {
        self.world().names.keys().cloned().collect()
    }

    fn file(&self, inode: usize) -> Box<dyn DiskFile> {
        Box::new(MemFile { disk: self.clone(), inode })
    }
}

impl Disk for MemDisk {
    fn dir(&self) -> &Path {
        Path::new("/mem")
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let world = self.world();
        Ok(world.names.iter().map(|(name, inode)| (name.clone(), world.inodes[*inode].seen.len() as u64)).collect())
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read>> {
        let world = self.world();
        let octets = world.inodes[world.find(name)?].seen.clone();
        Ok(Box::new(io::Cursor::new(octets)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.answering();
        world.operate(Operation::Create)?;
        let inode = match world.find(name) {
            Ok(inode) => {
                world.inodes[inode].seen.clear();
                inode
            }
            Err(_) => {
                world.inodes.push(Inode::default());
                let inode = world.inodes.len() - 1;
                world.step(Step::Link(name.into(), inode));
                inode
            }
        };
        drop(world);
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.world().find(name)?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.answering();
        world.operate(Operation::Rename)?;
        let inode = world.find(from)?;
        world.step(Step::Rename(from.into(), to.into(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.answering();
        world.operate(Operation::Remove)?;
        world.find(name)?;
        if world.no_removes {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        world.step(Step::Unlink(name.into()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut world = self.answering();
        world.operate(Operation::SyncNames)?;
        if world.bad_name_syncs > 0 {
            world.bad_name_syncs -= 1;
            return Err(io::Error::other("medium error"));
        }
        world.synced_names = world.names.clone();
        world.steps.clear();
        Ok(())
    }
}

struct MemFile {
    disk: MemDisk,
    inode: usize,
}

impl DiskFile for MemFile {
    fn write_at(&mut self, octets: &[u8], at: u64) -> io::Result<()> {
        let mut world = self.disk.answering();
        world.operate(Operation::Write)?;
        // The operation that uses up the life is done by half.
        let dies = world.life == Some(0);
        let at = at as usize;
        let more = (at + octets.len()).saturating_sub(world.inodes[self.inode].seen.len());
        let over = more.saturating_sub(world.room.unwrap_or(usize::MAX));
        let put = if dies { octets.len() / 2 } else { octets.len() - over };
        let inode = &mut world.inodes[self.inode];
        let grown = (at + put).saturating_sub(inode.seen.len());
        if inode.seen.len() < at + put {
            inode.seen.resize(at + put, 0);
        }
        inode.seen[at..at + put].copy_from_slice(&octets[..put]);
        inode.dirty.push(at..at + put);
        if let Some(room) = &mut world.room {
            *room = room.saturating_sub(grown);
        }
        match (dies, over) {
            (true, _) => Err(io::Error::other("dead")),
            (_, 0) => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut world = self.disk.answering();
        world.operate(Operation::SetLen)?;
        let inode = &mut world.inodes[self.inode];
        let freed = inode.seen.len().saturating_sub(len as usize);
        inode.seen.resize(len as usize, 0);
        if let Some(room) = &mut world.room {
            *room += freed;
        }
        Ok(())
    }

    /// Behaves like the Linux kernel: after a failed sync the pages count as clean, so a later sync does not write
    /// them.
    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.disk.answering();
        world.operate(Operation::Sync)?;
        let bad = world.bad_syncs > 0;
        world.bad_syncs = world.bad_syncs.saturating_sub(1);
        let inode = &mut world.inodes[self.inode];
        let dirty = std::mem::take(&mut inode.dirty);
        if bad {
            return Err(io::Error::other("medium error"));
        }
        inode.synced.resize(inode.seen.len(), 0);
        for range in dirty {
            let range = range.start.min(inode.seen.len())..range.end.min(inode.seen.len());
            inode.synced[range.clone()].copy_from_slice(&inode.seen[range]);
        }
        Ok(())
    }
}
