#![no_main]
//! See `handoff_fuzz::caches`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| handoff_fuzz::caches(data));
