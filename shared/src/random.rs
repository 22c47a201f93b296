//! Randomness for shells. Pure code takes it as an argument.

/// `N` bytes from the operating system.
///
/// # Panics
/// When the operating system has none to give, in which case no id or nonce is safe to make.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::expect_used,
        reason = "without randomness nothing is safe to go on"
    )]
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// For jitter, where predictability does no harm but repetition does.
pub fn number() -> u64 {
    u64::from_le_bytes(bytes())
}
