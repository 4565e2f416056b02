#![no_main]
//! See `handoff_fuzz::mounts`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| handoff_fuzz::mounts(data));
