//! Price books are read, or refused; what is read can be asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meter::PriceBook;
use meter::price::STANDARD;

fuzz_target!(|text: &str| {
    let Ok(book) = PriceBook::read(text) else {
        return;
    };
    for offer in book.offers() {
        book.offer(&offer.id);
        for now_ms in [0, 1_795_334_400_000] {
            if let Ok(rates) = book.rates(&offer.id, STANDARD, now_ms) {
                rates.bound(1_000, 1_000);
            }
        }
    }
});
