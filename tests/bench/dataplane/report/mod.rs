//! What comes out: the tables, the JSON and the plot.

mod document;
mod plot;
mod table;

pub(crate) use document::document;
pub(crate) use plot::plot;
pub(crate) use table::tables;
