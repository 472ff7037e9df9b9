//! Files that pages load, embedded; the name of each holds a hash of its bytes, so that browsers may keep
//! it for ever.

use std::sync::LazyLock;

/// A file that pages load.
#[derive(Debug)]
pub struct Asset {
    /// `/assets/style-0123456789abcdef.css`.
    pub path: String,
    pub kind: &'static str,
    pub bytes: &'static [u8],
}

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

static ALL: LazyLock<[Asset; 6]> = LazyLock::new(|| {
    [
        asset("style", "css", CSS, include_bytes!("../web/style.css")),
        asset("pareto", "js", JS, include_bytes!("../web/pareto.js")),
        asset(
            "htmx",
            "js",
            JS,
            include_bytes!("../web/vendor/htmx-4.0.1.min.js"),
        ),
        asset(
            "uplot",
            "js",
            JS,
            include_bytes!("../web/vendor/uplot-1.6.32.min.js"),
        ),
        asset(
            "uplot",
            "css",
            CSS,
            include_bytes!("../web/vendor/uplot-1.6.32.min.css"),
        ),
        asset(
            "icon",
            "svg",
            "image/svg+xml",
            include_bytes!("../web/icon.svg"),
        ),
    ]
});

/// The file at `path`.
pub fn asset_at(path: &str) -> Option<&'static Asset> {
    ALL.iter().find(|asset| asset.path == path)
}

/// The path of the file that is called so.
pub(crate) fn path(name: &str, end: &str) -> &'static str {
    let begin = format!("/assets/{name}-");
    let found = ALL
        .iter()
        .find(|asset| asset.path.starts_with(&begin) && asset.path.ends_with(&format!(".{end}")));
    found.map_or("", |asset| &asset.path)
}

fn asset(name: &str, end: &str, kind: &'static str, bytes: &'static [u8]) -> Asset {
    // FNV-1a: names need to differ, not to withstand anybody.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Asset {
        path: format!("/assets/{name}-{hash:016x}.{end}"),
        kind,
        bytes,
    }
}
