mod data;
mod lookup;
mod rows;
