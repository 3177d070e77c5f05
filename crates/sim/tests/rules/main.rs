//! Every rule of the path, as a promise that a simulated session keeps. One file per chapter, one test per rule.

mod silence;
