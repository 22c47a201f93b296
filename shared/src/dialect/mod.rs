//! Body and headers as each dialect has them. Pure: the same event gives the same bytes.

pub mod hr_on;
pub mod stackone;
