//! The committed weights are whole, order what is plainly easy and hard, and give any text a score.
