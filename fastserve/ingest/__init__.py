"""Events to rows: the batch job that fills the online store from files, and what it keeps records of."""
