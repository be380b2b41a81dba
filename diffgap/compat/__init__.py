"""Work-arounds for other libraries, each with the version or issue at which it can be deleted."""
