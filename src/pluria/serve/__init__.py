"""serve: an ensemble behind a web address; requests are gathered into batches, one thread owns the members."""
