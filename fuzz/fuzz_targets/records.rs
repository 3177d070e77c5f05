#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| turbotunnel_fuzz_targets::records::run(data));
