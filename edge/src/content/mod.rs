//! What the edge serves of itself or changes on its way: files of static folders, answers that it keeps, compression.

pub(crate) mod answer_cache;
pub(crate) mod byte_range;
pub(crate) mod compression;
pub(crate) mod media_type;
pub(crate) mod static_folder;
