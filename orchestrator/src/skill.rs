//! Skills: folders with a `SKILL.md` that say how a kind of work is done. Models see names and descriptions
//! first, the text when they ask for it, and its files when the text sends them there. Four are built in.

mod front;

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub use front::{Front, FrontError};

const FILE: &str = "SKILL.md";
/// Bytes of a `SKILL.md`: it is read by a model as a whole.
const MOST_TEXT: usize = 64 << 10;
/// Files of a skill, with its `SKILL.md`, and their bytes together.
const MOST_FILES: usize = 20;
const MOST_BYTES: u64 = 10 << 20;
/// Skills of one tenant, and skills that all share: their descriptions stand in every task's prompt.
const MOST_SKILLS: usize = 50;
/// Folders in folders.
const DEEPEST: usize = 4;

/// The skills that are part of the program.
const BUILTIN: &[(&str, &str)] = &[
    ("document", include_str!("../skills/document/SKILL.md")),
    (
        "research-and-cite",
        include_str!("../skills/research-and-cite/SKILL.md"),
    ),
    (
        "spreadsheet",
        include_str!("../skills/spreadsheet/SKILL.md"),
    ),
    ("verify", include_str!("../skills/verify/SKILL.md")),
];

/// Where a skill comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The program itself. Its names are nobody else's.
    Builtin,
    /// A folder of the operator's.
    Tenant,
    /// A folder that users write to.
    User,
}

/// A skill, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    pub layer: Layer,
    /// Its text may steer like the program's own. Only built-in skills may.
    pub trusted: bool,
    pub front: Front,
    /// What stands behind the front matter.
    pub body: String,
    /// All of its files by their paths below its folder, `SKILL.md` among them.
    files: BTreeMap<String, Vec<u8>>,
}

impl Skill {
    /// The digest of all of its files.
    pub fn pin(&self) -> Digest {
        let parts = self.files.iter();
        let parts: Vec<&[u8]> = parts
            .flat_map(|(path, bytes)| [path.as_bytes(), bytes.as_slice()])
            .collect();
        Digest::of_parts(&parts)
    }

    /// Whether a tool may be used while this skill is followed. It only narrows what a task may use
    /// anyway: a skill that names no tools leaves all of that, and one that names others adds none.
    pub fn allows(&self, tool: &str) -> bool {
        let Some(allowed) = &self.front.allowed_tools else {
            return true;
        };
        allowed.iter().any(|pattern| fits(pattern, tool))
    }

    /// Paths of its files, without `SKILL.md`.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let names = self.files.keys().map(String::as_str);
        names.filter(|name| *name != FILE)
    }
}

/// Whether a name fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(head) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match name.split_once(piece) {
            Some((_, behind)) => name = behind,
            None => return false,
        }
    }
    name.ends_with(last)
}

/// What a model sees of a skill before it asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub name: String,
    pub description: String,
    pub layer: Layer,
    pub trusted: bool,
}

/// A skill that is not taken, or something about it that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub path: PathBuf,
    pub what: String,
}

/// All skills there are, as they were when they were read.
#[derive(Debug, Clone, Default)]
pub struct Library {
    builtin: BTreeMap<String, Skill>,
    shared: BTreeMap<String, Skill>,
    own: BTreeMap<String, BTreeMap<String, Skill>>,
    /// What was found wrong, for whoever runs this.
    pub problems: Vec<Problem>,
}

impl Library {
    /// Reads the skills below `dirs`: `<dir>/<skill>/SKILL.md` for all, `<dir>/@<tenant>/<skill>/SKILL.md`
    /// for one tenant. What is wrong is told in `problems` and left out; nothing of it is fatal. Of two
    /// of one name the one that was read first counts. Blocks.
    pub fn open(dirs: &[(Layer, PathBuf)]) -> Self {
        let mut library = Self::default();
        for (name, text) in BUILTIN {
            match Front::read(text) {
                Ok((front, body)) if front.name == *name => {
                    let skill = Skill {
                        layer: Layer::Builtin,
                        trusted: true,
                        body: body.to_owned(),
                        files: BTreeMap::from([(FILE.to_owned(), text.as_bytes().to_vec())]),
                        front,
                    };
                    library.builtin.insert((*name).to_owned(), skill);
                }
                Ok((front, _)) => {
                    library.tell(Path::new(name), format!("its name is `{}`", front.name));
                }
                Err(error) => library.tell(Path::new(name), error.to_string()),
            }
        }
        for (layer, path) in dirs {
            library.read_folder(*layer, path);
        }
        library
    }

    /// What a tenant's tasks are told of skills, by name. A tenant's own stand before those that all share.
    pub fn list(&self, tenant: &str) -> Vec<Listed> {
        let mut found: BTreeMap<&String, &Skill> = self.builtin.iter().collect();
        found.extend(&self.shared);
        found.extend(self.own.get(tenant).into_iter().flatten());
        let listed = found.into_values().map(|skill| Listed {
            name: skill.front.name.clone(),
            description: skill.front.description.clone(),
            layer: skill.layer,
            trusted: skill.trusted,
        });
        listed.collect()
    }

    /// The skill that a tenant means by a name.
    pub fn skill(&self, tenant: &str, name: &str) -> Option<&Skill> {
        let own = self.own.get(tenant).and_then(|own| own.get(name));
        own.or_else(|| self.shared.get(name))
            .or_else(|| self.builtin.get(name))
    }

    /// The text of a skill.
    pub fn load(&self, tenant: &str, name: &str) -> Option<&str> {
        self.skill(tenant, name).map(|skill| skill.body.as_str())
    }

    /// A file of a skill, by its path below the skill's folder.
    pub fn read(&self, tenant: &str, name: &str, file: &str) -> Option<&[u8]> {
        let skill = self.skill(tenant, name)?;
        skill.files.get(file).map(Vec::as_slice)
    }

    /// The digest of all files of a skill, which a task keeps: a skill that changes anything has another.
    pub fn pin(&self, tenant: &str, name: &str) -> Option<Digest> {
        self.skill(tenant, name).map(Skill::pin)
    }

    fn tell(&mut self, path: &Path, what: impl Into<String>) {
        self.problems.push(Problem {
            path: path.to_owned(),
            what: what.into(),
        });
    }

    fn read_folder(&mut self, layer: Layer, path: &Path) {
        let names = Dir::open_ambient_dir(path, ambient_authority())
            .and_then(|dir| Ok((folders(&dir)?, dir)));
        let (names, dir) = match names {
            Ok(found) => found,
            Err(error) => return self.tell(path, format!("the folder can not be read: {error}")),
        };
        for name in names {
            let below = path.join(&name);
            let opened = match dir.open_dir(&name) {
                Ok(opened) => opened,
                Err(error) => {
                    self.tell(&below, format!("the folder can not be read: {error}"));
                    continue;
                }
            };
            let Some(tenant) = name.strip_prefix('@') else {
                self.take(layer, None, &below, &name, &opened);
                continue;
            };
            for name in folders(&opened).unwrap_or_default() {
                match opened.open_dir(&name) {
                    Ok(dir) => self.take(layer, Some(tenant), &below.join(&name), &name, &dir),
                    Err(error) => self.tell(&below.join(&name), error.to_string()),
                }
            }
        }
    }

    /// Takes up one skill, or tells why not.
    fn take(&mut self, layer: Layer, tenant: Option<&str>, path: &Path, name: &str, dir: &Dir) {
        let skill = match read_skill(layer, name, dir) {
            Ok(skill) => skill,
            Err(what) => return self.tell(path, what),
        };
        if self.builtin.contains_key(name) {
            return self.tell(path, format!("`{name}` is built in; choose another name"));
        }
        for unknown in &skill.front.unknown {
            self.tell(path, format!("its field `{unknown}` means nothing here"));
        }
        let shelf = match tenant {
            Some(tenant) => self.own.entry(tenant.to_owned()).or_default(),
            None => &mut self.shared,
        };
        let what = if shelf.contains_key(name) {
            "another of this name was read before"
        } else if shelf.len() >= MOST_SKILLS {
            "there are 50 skills already; the rest is left out"
        } else {
            shelf.insert(name.to_owned(), skill);
            return;
        };
        self.tell(path, what);
    }
}

/// Names of the folders in a folder, in their order.
fn folders(dir: &Dir) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in dir.entries()? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read_skill(layer: Layer, name: &str, dir: &Dir) -> Result<Skill, String> {
    let mut files = BTreeMap::new();
    let mut bytes = 0;
    gather(dir, "", 0, &mut files, &mut bytes)?;
    let text = files.get(FILE).ok_or("there is no SKILL.md in it")?;
    if text.len() > MOST_TEXT {
        return Err(
            "its SKILL.md is larger than 64 KiB; move parts of it into files beside".to_owned(),
        );
    }
    let text = std::str::from_utf8(text).map_err(|_| "its SKILL.md is no UTF-8 text")?;
    let (front, body) = Front::read(text).map_err(|error| error.to_string())?;
    if front.name != name {
        return Err(format!(
            "its name is `{}`, and its folder's `{name}`; they must be the same",
            front.name
        ));
    }
    Ok(Skill {
        layer,
        trusted: false,
        body: body.to_owned(),
        front,
        files,
    })
}

/// Reads all files below a folder. A symbolic link is an error: it may lead anywhere.
fn gather(
    dir: &Dir,
    below: &str,
    depth: usize,
    files: &mut BTreeMap<String, Vec<u8>>,
    bytes: &mut u64,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("`{below}` can not be read: {error}");
    for entry in dir.entries().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{below}{name}");
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_symlink() {
            return Err(format!(
                "`{path}` is a symbolic link; put the file itself there"
            ));
        }
        if kind.is_dir() {
            if depth >= DEEPEST {
                return Err(format!("`{path}` lies too deep"));
            }
            let inner = entry.open_dir().map_err(failed)?;
            gather(&inner, &format!("{path}/"), depth + 1, files, bytes)?;
            continue;
        }
        let mut content = Vec::new();
        let file = entry.open().map_err(failed)?;
        let read = file.take(MOST_BYTES + 1).read_to_end(&mut content);
        *bytes += u64::try_from(read.map_err(failed)?).unwrap_or(u64::MAX);
        if *bytes > MOST_BYTES {
            return Err("it is larger than 10 MiB".to_owned());
        }
        files.insert(path, content);
        if files.len() > MOST_FILES {
            return Err("it has more than 20 files".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
