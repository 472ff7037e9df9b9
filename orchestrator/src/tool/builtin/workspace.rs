//! The folder of one task, reached only through a directory handle: no `..`, absolute path or symbolic
//! link leads out of it. Files are written beside and renamed, so that a crash leaves the old or the new.
//! What would not come to the same when it is done again is noted under the call's key before it is done.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};

use super::place::{DONE, PENDING, Place, PlaceError, TRASH};
use crate::digest::Digest;
use crate::id::TaskId;

/// How much a workspace may hold, and what one call may see of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of all files together, with those in the trash.
    pub bytes: u64,
    pub file_bytes: u64,
    /// Files and folders.
    pub files: usize,
    /// Names in a path.
    pub depth: usize,
    /// Bytes of a name.
    pub name_bytes: usize,
    /// Bytes of a file that one call reads.
    pub read_bytes: u64,
    /// Lines that one search finds.
    pub hits: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            file_bytes: 32 << 20,
            files: 2_000,
            depth: 8,
            name_bytes: 120,
            read_bytes: 64 << 10,
            hits: 100,
        }
    }
}

/// A task's folder.
#[derive(Debug)]
pub struct Workspace {
    dir: Dir,
    limits: Limits,
}

/// Something in a workspace can not be done.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("there is no `{0}`")]
    Missing(String),
    #[error("`{0}` is there already; trash it first or choose another name")]
    Exists(String),
    #[error("`{0}` is no file")]
    NotFile(String),
    #[error("it does not fit: the workspace holds at most {0}")]
    Full(String),
    #[error("`{0}` has changed since this was begun; read it and think again")]
    Changed(String),
    #[error("{0}")]
    Refused(String),
    #[error("the workspace fails: {0}")]
    Io(#[from] io::Error),
}

/// A file that a task has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    pub path: String,
    pub sha256: Digest,
    pub size: u64,
}

/// A file or folder in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub place: Place,
    pub is_folder: bool,
    pub size: u64,
}

/// What was noted of a call before it was carried out.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    before: Digest,
    after: Digest,
}

impl Workspace {
    /// Opens the folder of a task below `root`, and makes it if it is not there: one level for the
    /// tenant, whose name may be no name of a folder, and one for the task.
    ///
    /// # Errors
    /// When the folder can not be made or opened.
    pub fn open(root: &Path, tenant: &str, task: TaskId, limits: Limits) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let root = Dir::open_ambient_dir(root, ambient_authority())?;
        let tenant = Digest::of(tenant.as_bytes()).to_string();
        root.create_dir_all(format!("{tenant}/{}", task.hex()))?;
        let dir = root.open_dir(tenant)?.open_dir(task.hex())?;
        for own in [TRASH, PENDING, DONE] {
            dir.create_dir_all(own)?;
        }
        Ok(Self { dir, limits })
    }

    /// Removes the folder of a task with all that is in it, if there is one.
    ///
    /// # Errors
    /// When it is there and can not be removed.
    pub fn remove(root: &Path, tenant: &str, task: TaskId) -> io::Result<()> {
        let removed = Dir::open_ambient_dir(root, ambient_authority()).and_then(|root| {
            let tenant = Digest::of(tenant.as_bytes()).to_string();
            root.open_dir(tenant)?.remove_dir_all(task.hex())
        });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Reads a path as one of this workspace.
    ///
    /// # Errors
    /// When it is none.
    pub fn place(&self, text: &str) -> Result<Place, WorkspaceError> {
        Ok(Place::read(text, &self.limits)?)
    }

    /// The limits it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All files, with their digests, in the order of their paths.
    ///
    /// # Errors
    /// When the folder can not be read.
    pub fn artifacts(&self) -> Result<Vec<Artifact>, WorkspaceError> {
        let files = self.list(&Place::root())?;
        let files = files.into_iter().filter(|entry| !entry.is_folder);
        files
            .map(|entry| {
                let bytes = self.read_file(&entry.place)?;
                Ok(Artifact {
                    path: entry.place.as_str().to_owned(),
                    sha256: Digest::of(&bytes),
                    size: entry.size,
                })
            })
            .collect()
    }

    /// Everything below `folder`, in the order of paths; symbolic links are left out.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn list(&self, folder: &Place) -> Result<Vec<Entry>, WorkspaceError> {
        let mut found = Vec::new();
        let mut open = vec![folder.clone()];
        while let Some(folder) = open.pop() {
            let path = if folder.as_str().is_empty() {
                "."
            } else {
                folder.as_str()
            };
            let entries = self
                .dir
                .read_dir(path)
                .map_err(|error| told(error, &folder))?;
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_own = folder.as_str().is_empty() && [TRASH, PENDING, DONE].contains(&&*name);
                let kind = entry.file_type()?;
                if is_own || kind.is_symlink() {
                    continue;
                }
                let place = folder.below(&name);
                if kind.is_dir() {
                    open.push(place.clone());
                }
                found.push(Entry {
                    is_folder: kind.is_dir(),
                    size: if kind.is_dir() {
                        0
                    } else {
                        entry.metadata()?.len()
                    },
                    place,
                });
            }
        }
        found.sort_by(|one, other| one.place.cmp(&other.place));
        Ok(found)
    }

    /// A whole file.
    ///
    /// # Errors
    /// When there is none, or it is larger than a file of a workspace may be.
    pub fn read_file(&self, place: &Place) -> Result<Vec<u8>, WorkspaceError> {
        let (bytes, size) = self.read_range(place, 0, self.limits.file_bytes)?;
        if size > self.limits.file_bytes {
            return Err(WorkspaceError::Full(bytes_of(self.limits.file_bytes)));
        }
        Ok(bytes)
    }

    /// Up to `limit` bytes of a file from `offset` on, and its size.
    ///
    /// # Errors
    /// When there is none.
    pub fn read_range(
        &self,
        place: &Place,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<u8>, u64), WorkspaceError> {
        let missing = |error| told(error, place);
        let mut file = self.dir.open(place.as_str()).map_err(missing)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(WorkspaceError::NotFile(place.as_str().to_owned()));
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok((bytes, metadata.len()))
    }

    /// Writes a whole file, in place of what was there.
    ///
    /// # Errors
    /// When it does not fit, or a folder has its name.
    pub fn write_file(&self, place: &Place, bytes: &[u8]) -> Result<(), WorkspaceError> {
        let old = match self.dir.symlink_metadata(place.as_str()) {
            Ok(old) if old.is_dir() => {
                return Err(WorkspaceError::NotFile(place.as_str().to_owned()));
            }
            Ok(old) => Some(old.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.fits(place, size, old)?;
        if let Some(folder) = place.folder() {
            self.dir.create_dir_all(folder)?;
        }
        let beside = format!("{PENDING}/{}", Digest::of(place.as_str().as_bytes()));
        let mut file = self.dir.create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.dir.rename(&beside, &self.dir, place.as_str())?;
        Ok(())
    }

    /// Whether a file of `size` fits where one of `old` bytes is, or none.
    fn fits(&self, place: &Place, size: u64, old: Option<u64>) -> Result<(), WorkspaceError> {
        if size > self.limits.file_bytes {
            let most = bytes_of(self.limits.file_bytes);
            return Err(WorkspaceError::Full(format!("files of {most}")));
        }
        let kept = self.list(&Place::root())?;
        let bytes: u64 = kept.iter().map(|entry| entry.size).sum();
        let bytes = bytes.saturating_add(self.trash_bytes(Path::new(TRASH))?);
        if bytes.saturating_sub(old.unwrap_or(0)).saturating_add(size) > self.limits.bytes {
            return Err(WorkspaceError::Full(bytes_of(self.limits.bytes)));
        }
        let folders = place.as_str().split('/').count();
        if old.is_none() && kept.len() + folders > self.limits.files {
            let most = self.limits.files;
            return Err(WorkspaceError::Full(format!("{most} files and folders")));
        }
        Ok(())
    }

    fn trash_bytes(&self, folder: &Path) -> io::Result<u64> {
        let mut bytes = 0_u64;
        for entry in self.dir.read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let size = if kind.is_dir() {
                self.trash_bytes(&folder.join(entry.file_name()))?
            } else {
                entry.metadata()?.len()
            };
            bytes = bytes.saturating_add(size);
        }
        Ok(bytes)
    }

    /// Puts `bytes` in place of what a file was when this call began, whose digest is `before`. Done
    /// once under `key`, however often it is called.
    ///
    /// # Errors
    /// When the file has become something else since.
    pub(super) fn replace_once(
        &self,
        key: &str,
        place: &Place,
        before: &[u8],
        bytes: &[u8],
    ) -> Result<(), WorkspaceError> {
        self.note(key, Digest::of(before), Digest::of(bytes))?;
        self.write_file(place, bytes)
    }

    /// Whether a replacement under `key` has been done; an error where the file is neither what it was
    /// nor what it became.
    pub(super) fn was_replaced(&self, key: &str, place: &Place) -> Result<bool, WorkspaceError> {
        let Some(note) = self.noted(key)? else {
            return Ok(false);
        };
        let now = Digest::of(&self.read_file(place)?);
        if now == note.after {
            return Ok(true);
        }
        if now == note.before {
            return Ok(false);
        }
        Err(WorkspaceError::Changed(place.as_str().to_owned()))
    }

    /// Moves a file or folder to where nothing is. Done once under `key`.
    ///
    /// # Errors
    /// When there is nothing to move or something is in the way.
    pub fn move_once(&self, key: &str, from: &Place, to: &Place) -> Result<(), WorkspaceError> {
        let (source, target) = (self.identity(from)?, self.identity(to)?);
        match (source, target) {
            (None, Some(target)) if self.noted(key)?.is_some_and(|it| it.after == target) => Ok(()),
            (None, _) => Err(WorkspaceError::Missing(from.as_str().to_owned())),
            (Some(_), Some(_)) => Err(WorkspaceError::Exists(to.as_str().to_owned())),
            (Some(source), None) => {
                let inside = to.as_str().starts_with(&format!("{}/", from.as_str()));
                if inside {
                    let text = format!("`{}` can not be moved into itself", from.as_str());
                    return Err(WorkspaceError::Refused(text));
                }
                self.note(key, source, source)?;
                if let Some(folder) = to.folder() {
                    self.dir.create_dir_all(folder)?;
                }
                self.dir.rename(from.as_str(), &self.dir, to.as_str())?;
                Ok(())
            }
        }
    }

    /// Moves a file or folder to the trash, over what of that name is there. Done once under `key`.
    ///
    /// # Errors
    /// When there is none.
    pub fn trash_once(&self, key: &str, place: &Place) -> Result<(), WorkspaceError> {
        let Some(found) = self.identity(place)? else {
            return match self.noted(key)? {
                Some(_) => Ok(()),
                None => Err(WorkspaceError::Missing(place.as_str().to_owned())),
            };
        };
        if self.noted(key)?.is_some_and(|note| note.after != found) {
            // It was trashed, and another has its name by now.
            return Ok(());
        }
        self.note(key, found, found)?;
        let name = place.as_str().rsplit('/').next().unwrap_or_default();
        let digest = Digest::of(place.as_str().as_bytes()).short();
        let old = format!("{TRASH}/{digest}-{name}");
        if self.dir.symlink_metadata(&old).is_ok() {
            let is_folder = self.dir.symlink_metadata(&old)?.is_dir();
            if is_folder {
                self.dir.remove_dir_all(&old)?;
            } else {
                self.dir.remove_file(&old)?;
            }
        }
        self.dir.rename(place.as_str(), &self.dir, &old)?;
        Ok(())
    }

    /// What is at a place: the digest of a file's bytes, or of the paths and sizes below a folder.
    fn identity(&self, place: &Place) -> Result<Option<Digest>, WorkspaceError> {
        let kind = match self.dir.symlink_metadata(place.as_str()) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if kind.is_symlink() {
            return Err(WorkspaceError::NotFile(place.as_str().to_owned()));
        }
        if kind.is_file() {
            return Ok(Some(Digest::of(&self.read_file(place)?)));
        }
        let mut text = String::new();
        for entry in self.list(place)? {
            let below = entry.place.as_str().strip_prefix(place.as_str());
            text.extend([format!("{}\t{}\n", below.unwrap_or_default(), entry.size)]);
        }
        Ok(Some(Digest::of_parts(&[b"folder", text.as_bytes()])))
    }

    fn note(&self, key: &str, before: Digest, after: Digest) -> Result<(), WorkspaceError> {
        let path = format!("{DONE}/{}", Digest::of(key.as_bytes()));
        let note = serde_json::to_vec(&Note { before, after }).map_err(io::Error::other)?;
        let beside = format!("{path}.new");
        let mut file = self.dir.create(&beside)?;
        file.write_all(&note)?;
        file.sync_all()?;
        self.dir.rename(&beside, &self.dir, &path)?;
        Ok(())
    }

    fn noted(&self, key: &str) -> Result<Option<Note>, WorkspaceError> {
        let path = format!("{DONE}/{}", Digest::of(key.as_bytes()));
        match self.dir.read(path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn told(error: io::Error, place: &Place) -> WorkspaceError {
    if is_missing(&error) {
        WorkspaceError::Missing(place.as_str().to_owned())
    } else {
        WorkspaceError::Io(error)
    }
}

fn bytes_of(bytes: u64) -> String {
    if bytes >= 1 << 20 {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{bytes} bytes")
    }
}
