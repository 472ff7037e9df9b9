//! Other price lists, turned into new periods of a book.
