//! The marks that this endpoint puts on its reasoning, and knows again when it comes back.

/// The signature of a `thinking` block.
pub(super) fn signature(origin: &str, text: &str) -> String {
    format!("sig:{origin}:{:016x}", hash(text.as_bytes()))
}

/// The `encrypted_content` of a `reasoning` item.
pub(super) fn encrypted(origin: &str, text: &str) -> String {
    format!("enc:{origin}:{:016x}", hash(text.as_bytes()))
}

/// The mark is a signature that this endpoint made, for whatever text.
pub(super) fn is_signature(origin: &str, mark: &str) -> bool {
    mark.starts_with(&format!("sig:{origin}:"))
}

/// The mark is encrypted content that this endpoint made, for whatever text.
pub(super) fn is_encrypted(origin: &str, mark: &str) -> bool {
    mark.starts_with(&format!("enc:{origin}:"))
}

/// FNV-1a: the same on every machine and in every version, and nothing secret hangs on it.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
