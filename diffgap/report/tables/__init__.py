"""Tables of the report, and the registry that names them."""
