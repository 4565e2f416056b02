#![no_main]
//! See `handoff_fuzz::records`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| handoff_fuzz::records(data));
