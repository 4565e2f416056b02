#![no_main]
//! See `handoff_fuzz::webhook`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| handoff_fuzz::webhook(data));
