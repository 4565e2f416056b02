#![no_main]
//! See `handoff_fuzz::extender`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| handoff_fuzz::extender(data));
