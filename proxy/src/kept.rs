//! What lies in the store's folder beside the store itself: secrets that are made at the first start, and the
//! folder, which its owner alone reads.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use meter::ledger::KeyRow;

use crate::config::{Admin, Config, Secret};
use crate::identify::Pepper;

/// Makes the store's folder where there is none: what is kept of conversations lies there, so nobody else looks
/// into it. One that is there keeps the rights that somebody has given it.
///
/// # Errors
/// When it can not be made.
pub(crate) fn make_folder(dir: &Path) -> anyhow::Result<()> {
    let mut folder = DirBuilder::new();
    let made = folder.recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("making folder {}; set store.dir", dir.display()))
}

/// The tokens of the operators and of finance people; made at the first start where there are none.
///
/// # Errors
/// When one can not be read or made, is empty, or both are the same.
pub(crate) fn tokens(admin: &Admin, dir: &Path) -> anyhow::Result<[Secret; 2]> {
    let token = |token: &Option<Secret>, name: &str| match token {
        Some(token) => Ok(token.clone()),
        None => secret(&dir.join(name)),
    };
    let operator = token(&admin.token, "admin.token")?;
    let finance = token(&admin.finance_token, "finance.token")?;
    anyhow::ensure!(
        operator.expose() != finance.expose(),
        "the operators' token is the finance token too, so who may only read could change everything; give one of \
         them another value, in [admin] or in admin.token and finance.token of {}",
        dir.display()
    );
    Ok([operator, finance])
}

/// The pepper of key hashes; made at the first start where there is none.
///
/// # Errors
/// When it can not be read or made, is empty, or is missing while the ledger has `keys`: under another one none of
/// them would be let in.
pub(crate) fn pepper(
    config: &Config,
    keys: impl FnOnce() -> anyhow::Result<Vec<KeyRow>>,
) -> anyhow::Result<Pepper> {
    if let Some(pepper) = &config.keys.pepper {
        return Ok(Pepper::new(pepper.expose().as_bytes()));
    }
    let path = config.store.dir.join("keys.pepper");
    if !path.try_exists()? {
        let keys = keys()?;
        let alive = keys.iter().filter(|it| it.revoked_at_ms.is_none()).count();
        anyhow::ensure!(
            alive == 0,
            "{} is missing, and the ledger has {alive} keys that were made with it; put it back from a backup or from \
             another node, or set keys.pepper. Where it is lost for good, write a new secret to the file: then every key \
             has to be made anew",
            path.display()
        );
    }
    Ok(Pepper::new(secret(&path)?.expose().as_bytes()))
}

/// The secret in the file at `path`, made at the first call and readable by its owner alone.
///
/// # Errors
/// When it can not be read or made, or is empty.
pub(crate) fn secret(path: &Path) -> anyhow::Result<Secret> {
    if !path.try_exists()?
        && let Some(made) = made(path).with_context(|| format!("making {}", path.display()))?
    {
        return Ok(made);
    }
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(
        !text.trim().is_empty(),
        "{} is empty: put back what it held, or remove the file to have a new secret made",
        path.display()
    );
    Ok(Secret::new(text.trim().to_owned()))
}

/// A new secret in a file that appears at `path` with all that is in it, or not at all. `None` where another process
/// was quicker.
fn made(path: &Path) -> anyhow::Result<Option<Secret>> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("randomness: {error}"))?;
    let text: String = random
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(hex)
        .collect();
    let beside = beside(path);
    // One of a process of the same number that was killed.
    let _none = std::fs::remove_file(&beside);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let placed = (|| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        place(&beside, path)
    })();
    let _moved = std::fs::remove_file(&beside);
    match placed {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        placed => placed?,
    }
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(Some(Secret::new(text)))
}

/// Where a file is written before it is put at `path`.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    PathBuf::from(name)
}

/// Gives the file at `from` the name `path`, which nothing may have: renaming would replace the secret that another
/// process has made meanwhile and uses.
fn place(from: &Path, path: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(from, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        // There are file systems without links.
        Err(_) => std::fs::rename(from, path),
        Ok(()) => Ok(()),
    }
}

/// The letter of half a byte.
fn hex(half: u8) -> char {
    char::from_digit(u32::from(half), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_whole_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.token");
        let first = secret(&path).expect("made");
        assert_eq!(first.expose().len(), 64);
        assert_eq!(secret(&path).expect("read").expose(), first.expose());
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(files, 1, "nothing is left beside it");
        // Another process was quicker: what it has made stays.
        assert!(made(&path).expect("no error").is_none());
        assert_eq!(secret(&path).expect("read").expose(), first.expose());
    }

    #[test]
    fn an_empty_file_is_no_secret() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.pepper");
        for nothing in ["", "\n", "  \n"] {
            std::fs::write(&path, nothing).expect("written");
            let told = secret(&path).expect_err("empty").to_string();
            assert!(told.contains("keys.pepper is empty: put back"), "{told}");
        }
    }

    #[test]
    fn one_token_for_both_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let admin = Admin::default();
        tokens(&admin, folder.path()).expect("two of them");
        let operator = std::fs::read(folder.path().join("admin.token")).expect("there");
        std::fs::write(folder.path().join("finance.token"), operator).expect("written");
        let told = tokens(&admin, folder.path()).expect_err("one").to_string();
        assert!(told.contains("is the finance token too"), "{told}");
    }

    #[test]
    fn a_folder_is_made_for_its_owner_alone_and_one_that_is_there_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let mode = |dir: &Path| std::fs::metadata(dir).expect("there").permissions().mode() & 0o777;
        let dir = folder.path().join("data");
        make_folder(&dir).expect("made");
        assert_eq!(mode(&dir), 0o700);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750)).expect("changed");
        make_folder(&dir).expect("there");
        assert_eq!(mode(&dir), 0o750);
    }
}
